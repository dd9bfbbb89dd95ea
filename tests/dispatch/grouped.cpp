// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/grouped.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/counting_backend.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

namespace {
using experts_type = hmoe::expert_set<hmoe::experts::glu_bank<double, hmoe::experts::silu>>;
experts_type make_experts() {
  experts_type experts{hmoe::experts::glu_bank<double, hmoe::experts::silu>(4, {2, 7})};
  experts.initialize(hmoe::seed{1}, 0, {});
  return experts;
}
} // namespace

TEST_CASE("batches longer than a tile give the rows that one call gives, with or without saving") {
  const auto experts = make_experts();
  support::random_source random(131);
  const std::size_t rows = 2 * hmoe::dispatch::rows_per_tile + 5;
  const auto x = support::random_matrix<double>(random, rows, 4);
  hmoe::matrix<double> expected(rows, 4), expected_saved(rows, experts.saved_per_row(1));
  experts.forward(hmoe::backends::reference{}, 1, x.view(), expected.view(), expected_saved.view());

  for (const std::size_t threads : {1U, 3U}) {
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    for (const bool saving : {true, false}) {
      hmoe::matrix<double> y(rows, 4), small(3, 4), saved(rows, experts.saved_per_row(1));
      const std::vector<hmoe::dispatch::forward_batch<double>> batches{
          {0, x.view().row_block(0, 3), small.view(), {}},
          {0, x.view().row_block(0, 0), small.view().row_block(0, 0), {}},
          {1, x.view(), y.view(), saving ? saved.view() : hmoe::matrix_view<double>{}}};
      const hmoe::workspace::scope scope(ctx.workspace());
      hmoe::dispatch::forward_experts(ctx, experts,
                                      hmoe::vector_view<const hmoe::dispatch::forward_batch<double>>(batches));
      CHECK(std::memcmp(y.data(), expected.data(), y.size() * sizeof(double)) == 0);
      if (saving)
        CHECK(std::memcmp(saved.data(), expected_saved.data(), saved.size() * sizeof(double)) == 0);
    }
  }
}

namespace {
/// A backend with a grouped primitive of its own.
struct own_grouped : hmoe::backends::reference {
  int* calls;
  template <class Context, class Experts, class T>
  void forward_experts(const Context&, const Experts&,
                       hmoe::vector_view<const hmoe::dispatch::forward_batch<T>> batches) const {
    *calls += static_cast<int>(batches.size());
  }
  template <class Context, class Experts, class T>
  void backward_experts(const Context&, const Experts&,
                        hmoe::vector_view<const hmoe::dispatch::backward_batch<T>> batches, Experts&) const {
    *calls += 100 * static_cast<int>(batches.size());
  }
};
} // namespace

TEST_CASE("a backend's own grouped primitive is preferred") {
  auto experts = make_experts();
  int calls = 0;
  const hmoe::context ctx{own_grouped{{}, &calls}};
  const hmoe::workspace::scope scope(ctx.workspace());
  const std::vector<hmoe::dispatch::forward_batch<double>> forward(2);
  const std::vector<hmoe::dispatch::backward_batch<double>> backward(1);
  hmoe::dispatch::forward_experts(ctx, experts,
                                  hmoe::vector_view<const hmoe::dispatch::forward_batch<double>>(forward));
  auto gradients = experts;
  hmoe::dispatch::backward_experts(
      ctx, experts, hmoe::vector_view<const hmoe::dispatch::backward_batch<double>>(backward), gradients);
  CHECK(calls == 102);
}

namespace {
using hmoe::dispatch::bank_memory;

/// Three banks, which the backend below tells apart by their sizes: 2, 3 and 1.
using three_banks = hmoe::expert_set<hmoe::experts::glu_bank<double, hmoe::experts::silu>,
                                     hmoe::experts::mlp_bank<double, hmoe::experts::gelu>,
                                     hmoe::experts::glu_bank<double, hmoe::experts::relu>>;
three_banks make_three_banks() {
  using enum hmoe::experts::biases;
  three_banks experts{hmoe::experts::glu_bank<double, hmoe::experts::silu>(4, {2, 7}, all),
                      hmoe::experts::mlp_bank<double, hmoe::experts::gelu>(4, {3, 1, 5}, none),
                      hmoe::experts::glu_bank<double, hmoe::experts::relu>(4, {6}, none)};
  support::random_source random(132);
  experts.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  return experts;
}

/// What a backend was asked to compute at once.
struct bank_call {
  bool backward;
  std::size_t first, experts, batches;
  bool operator==(const bank_call&) const = default;
};

/// A backend as a user writes it: the products, and banks of the sizes in `takes` at once, with all of the memory that
/// is announced for their rows. It adds up what it multiplies in either form.
struct at_once : support::counting_backend {
  std::vector<std::size_t> takes;
  std::vector<bank_call>* calls;

  template <class Bank> [[nodiscard]] bool takes_bank(const Bank& bank) const {
    return std::ranges::find(takes, bank.size()) != takes.end();
  }
  template <class Context, class Bank>
  void forward_bank(const Context& ctx, const Bank& bank, std::size_t first,
                    hmoe::vector_view<const hmoe::dispatch::forward_batch<double>> batches) const {
    calls->push_back({false, first, bank.size(), batches.size()});
    with_memory(ctx, bank, first, batches, [&](const auto& batch, std::size_t e, double* memory) {
      const hmoe::matrix_view<double> own(memory, batch.x.rows(), bank.saved_per_row(e));
      bank.forward(*this, e, batch.x, batch.y, batch.saved.data() != nullptr ? batch.saved : own);
    });
  }
  template <class Context, class Bank>
  void backward_bank(const Context& ctx, const Bank& bank, std::size_t first,
                     hmoe::vector_view<const hmoe::dispatch::backward_batch<double>> batches, Bank& gradients) const {
    calls->push_back({true, first, bank.size(), batches.size()});
    with_memory(ctx, bank, first, batches, [&](const auto& batch, std::size_t e, double* memory) {
      const hmoe::matrix_view<double> scratch(memory, batch.x.rows(), bank.scratch_per_row(e));
      bank.backward(*this, e, batch.x, batch.saved, batch.dy, batch.dx, scratch, gradients);
    });
  }

private:
  template <class Context, class Bank, class Batches, class F>
  static void with_memory(const Context& ctx, const Bank& bank, std::size_t first, const Batches& batches, F&& f) {
    const auto mine = [&](const auto& batch) { return batch.expert >= first && batch.expert < first + bank.size(); };
    std::size_t rows = 0;
    for (const auto& batch : batches)
      rows += mine(batch) ? batch.x.rows() : 0;
    hmoe::buffer<double> memory(bank_memory::bytes(bank, rows) / sizeof(double), &ctx.workspace());
    for (const auto& batch : batches)
      if (mine(batch) && batch.x.rows() != 0)
        f(batch, batch.expert - first, memory.data());
  }
};
/// It knows the way forward only.
struct forward_at_once : at_once {
  void backward_bank() const = delete;
};

/// All that forward, with and without saving, and backward compute over batches of some experts; gradients are added
/// to values.
template <class Context>
std::vector<double> passes(const Context& ctx, const three_banks& experts,
                           const std::vector<std::pair<std::size_t, std::size_t>>& rows) {
  support::random_source random(133);
  std::vector<hmoe::matrix<double>> x, dy, y, inferred, saved, dx;
  std::vector<hmoe::dispatch::forward_batch<double>> forward, inference;
  std::vector<hmoe::dispatch::backward_batch<double>> backward;
  for (const auto& [e, count] : rows) {
    x.push_back(support::random_matrix<double>(random, count, 4));
    dy.push_back(support::random_matrix<double>(random, count, 4));
    for (auto* results : {&y, &inferred, &dx})
      results->emplace_back(count, 4);
    saved.emplace_back(count, experts.saved_per_row(e));
    forward.push_back({e, x.back().view(), y.back().view(), saved.back().view()});
    inference.push_back({e, x.back().view(), inferred.back().view(), {}});
    backward.push_back({e, x.back().view(), saved.back().view(), dy.back().view(), dx.back().view()});
  }
  three_banks gradients = experts;
  using forward_batches = hmoe::vector_view<const hmoe::dispatch::forward_batch<double>>;
  const hmoe::workspace::scope scope(ctx.workspace());
  hmoe::dispatch::forward_experts(ctx, experts, forward_batches(forward));
  hmoe::dispatch::forward_experts(ctx, experts, forward_batches(inference));
  hmoe::dispatch::backward_experts(
      ctx, experts, hmoe::vector_view<const hmoe::dispatch::backward_batch<double>>(backward), gradients);

  std::vector<double> all;
  for (const auto* results : {&y, &inferred, &saved, &dx})
    for (const auto& m : *results)
      all.insert(all.end(), m.data(), m.data() + m.size());
  gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
    all.insert(all.end(), view.data(), view.data() + view.size());
  });
  return all;
}
bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

const std::vector<std::vector<std::pair<std::size_t, std::size_t>>> batches_of_three_banks{
    {{0, 5}, {1, 0}, {2, 2 * hmoe::dispatch::rows_per_tile + 3}, {3, 1}, {4, 0}, {5, 40}},
    {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}},
    {{3, 7}}, // as dispatch::looped has it
    {}};
} // namespace

static_assert(
    hmoe::dispatch::computes_bank<hmoe::context<at_once>, hmoe::experts::glu_bank<double, hmoe::experts::silu>>);
static_assert(!hmoe::dispatch::computes_bank<hmoe::context<support::counting_backend>,
                                             hmoe::experts::glu_bank<double, hmoe::experts::silu>>);
static_assert(!hmoe::dispatch::computes_bank<hmoe::context<forward_at_once>,
                                             hmoe::experts::glu_bank<double, hmoe::experts::silu>>);

TEST_CASE("a backend computes the banks that it takes at once, the others expert after expert: the same bits") {
  const three_banks experts = make_three_banks();
  for (const auto& rows : batches_of_three_banks) {
    support::counting_backend::counts expected_work;
    const auto expected = passes(hmoe::context{support::counting_backend{&expected_work}}, experts, rows);
    for (const std::vector<std::size_t>& takes :
         std::vector<std::vector<std::size_t>>{{}, {2}, {3}, {1, 2}, {1, 2, 3}}) {
      CAPTURE(rows.size());
      CAPTURE(takes.size());
      support::counting_backend::counts work;
      std::vector<bank_call> calls, expected_calls;
      const hmoe::context ctx{at_once{{&work}, takes, &calls}};
      CHECK(same_bits(passes(ctx, experts, rows), expected));
      CHECK(work.multiply_adds == expected_work.multiply_adds); // nothing twice, nothing left out

      // Each bank that is taken gets all batches, once in a pass and in the order of the banks; the others are not
      // seen.
      for (const bool backward : {false, false, true})
        experts.for_each_bank([&](const auto& bank, std::size_t first) {
          if (ctx.backend().takes_bank(bank))
            expected_calls.push_back({backward, first, bank.size(), rows.size()});
        });
      CHECK(calls == expected_calls);
      CHECK(calls.size() == 3 * takes.size());
    }
  }
}

TEST_CASE("which experts a backend computes at once") {
  const three_banks experts = make_three_banks();
  support::counting_backend::counts work;
  std::vector<bank_call> calls;
  const auto computed = [&](std::vector<std::size_t> takes) {
    const hmoe::context ctx{at_once{{&work}, std::move(takes), &calls}};
    std::vector<bool> result;
    for (std::size_t e = 0; e < experts.size(); ++e)
      result.push_back(hmoe::dispatch::backend_computes(ctx, experts, e));
    return result;
  };
  CHECK(computed({}) == std::vector<bool>{false, false, false, false, false, false});
  CHECK(computed({3}) == std::vector<bool>{false, false, true, true, true, false});
  CHECK(computed({1, 2}) == std::vector<bool>{true, true, false, false, false, true});
  CHECK(!hmoe::dispatch::backend_computes(hmoe::context{support::counting_backend{&work}}, experts, 0));
}

TEST_CASE("a backend that lacks one of the two ways for a bank is not asked for the other") {
  const three_banks experts = make_three_banks();
  support::counting_backend::counts work, expected_work;
  std::vector<bank_call> calls;
  const auto& rows = batches_of_three_banks[0];
  const auto ours = passes(hmoe::context{forward_at_once{{{&work}, {1, 2, 3}, &calls}}}, experts, rows);
  CHECK(same_bits(ours, passes(hmoe::context{support::counting_backend{&expected_work}}, experts, rows)));
  CHECK(work.multiply_adds == expected_work.multiply_adds);
  CHECK(calls.empty());
}

TEST_CASE("banks computed at once take their memory one after the other, and a layer announces enough for them") {
  const three_banks experts = make_three_banks();
  support::counting_backend::counts work;
  std::vector<bank_call> calls;
  const at_once backend{{&work}, {1, 2, 3}, &calls};
  // The glu bank of two experts has 5 rows, the mlp bank 260, the last one 40.
  hmoe::workspace memory;
  static_cast<void>(
      passes(hmoe::context{backend, hmoe::executors::serial{}, memory}, experts, batches_of_three_banks[0]));
  std::size_t most = 0;
  experts.for_each_bank([&](const auto& bank, std::size_t first) {
    most = std::max(most, bank_memory::bytes(bank, first == 0 ? 5 : first == 2 ? 260 : 40));
  });
  CHECK(memory.peak() >= most);
  CHECK(memory.peak() <= most + 3 * hmoe::memory_alignment + 6 * 3 * sizeof(std::size_t)); // and lists of batches

  hmoe::moe_layer layer{experts, hmoe::routing::top_k_router<double>{4, 6, 2}};
  layer.initialize(hmoe::seed{3});
  support::random_source random(134);
  for (const std::size_t tokens : {1U, 17U, 600U}) {
    CAPTURE(tokens);
    hmoe::workspace announced(layer.workspace_bytes(tokens));
    const hmoe::context ctx{backend, hmoe::executors::serial{}, announced};
    const auto x = support::random_matrix<double>(random, tokens, 4);
    hmoe::matrix<double> y(tokens, 4), dx(tokens, 4);
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, x, dx, gradients);
    CHECK(announced.peak() <= layer.workspace_bytes(tokens));
    CHECK(announced.capacity() == layer.workspace_bytes(tokens));
  }
}
