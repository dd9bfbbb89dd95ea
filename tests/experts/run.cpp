// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/run.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/counting_backend.hpp"
#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

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
  const std::size_t rows = 2 * hmoe::experts::rows_per_tile + 5;
  const auto x = support::random_matrix<double>(random, rows, 4);
  hmoe::matrix<double> expected(rows, 4), expected_saved(rows, experts.saved_per_row(1));
  experts.forward(hmoe::backends::reference{}, 1, x.view(), expected.view(), expected_saved.view());

  for (const std::size_t threads : {1U, 3U}) {
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    for (const bool saving : {true, false}) {
      hmoe::matrix<double> y(rows, 4), small(3, 4), saved(rows, experts.saved_per_row(1));
      const std::vector<hmoe::expert_rows<double>> work{
          {.expert = 0, .count = 3, .x = x.view().row_block(0, 3), .y = small.view()},
          {.expert = 1,
           .count = rows,
           .x = x.view(),
           .y = y.view(),
           .saved = saving ? saved.view() : hmoe::matrix_view<double>{}}};
      experts.forward_rows(ctx, hmoe::vector_view<const hmoe::expert_rows<double>>(work));
      CHECK(std::memcmp(y.data(), expected.data(), y.size() * sizeof(double)) == 0);
      if (saving)
        CHECK(std::memcmp(saved.data(), expected_saved.data(), saved.size() * sizeof(double)) == 0);
    }
  }
}

namespace {
using rows_list = hmoe::vector_view<const hmoe::expert_rows<double>>;

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
  std::size_t experts, rows;
  bool operator==(const bank_call&) const = default;
};

/// A backend as a user writes it: the products, and banks of the sizes in `takes` at once. It adds up what it
/// multiplies in either form.
struct at_once : support::counting_backend {
  std::vector<std::size_t> takes;
  std::vector<bank_call>* calls;

  template <class Bank> [[nodiscard]] bool takes_bank(const Bank& bank) const {
    return std::ranges::find(takes, bank.size()) != takes.end();
  }
  template <class Context, class Bank> void forward_bank(const Context& ctx, const Bank& bank, rows_list rows) const {
    calls->push_back({false, bank.size(), count(rows)});
    const hmoe::workspace::scope scope(ctx.workspace());
    auto memory = scratch(ctx, most(rows, [&](std::size_t e) { return bank.saved_per_row(e); }));
    for (const auto& r : rows) {
      const hmoe::matrix_view<double> own(memory.data(), r.count, bank.saved_per_row(r.expert));
      bank.forward(*this, r.expert, r.x, r.y, r.keeps() ? r.saved : own);
    }
  }
  template <class Context, class Bank>
  void backward_bank(const Context& ctx, const Bank& bank, rows_list rows, Bank& gradients) const {
    calls->push_back({true, bank.size(), count(rows)});
    const hmoe::workspace::scope scope(ctx.workspace());
    auto memory = scratch(ctx, most(rows, [&](std::size_t e) { return bank.scratch_per_row(e); }));
    for (const auto& r : rows) {
      const hmoe::matrix_view<double> own(memory.data(), r.count, bank.scratch_per_row(r.expert));
      bank.backward(*this, r.expert, r.x, r.saved, r.dy, r.dx, own, gradients);
    }
  }
  template <class Context, class Bank>
  void lay_out_forward_bank(const Context& dry, const Bank& bank, const hmoe::row_limits& limits) const {
    const hmoe::workspace::scope scope(dry.workspace());
    const auto memory = scratch(dry, widest(bank, [&](std::size_t e) { return bank.saved_per_row(e); }) * limits.each);
  }
  template <class Context, class Bank>
  void lay_out_backward_bank(const Context& dry, const Bank& bank, const hmoe::row_limits& limits) const {
    const hmoe::workspace::scope scope(dry.workspace());
    const auto memory =
        scratch(dry, widest(bank, [&](std::size_t e) { return bank.scratch_per_row(e); }) * limits.each);
  }

private:
  template <class Context> static hmoe::buffer<double> scratch(const Context& ctx, std::size_t values) {
    return hmoe::buffer<double>(values, &ctx.workspace());
  }
  template <class PerRow> static std::size_t most(rows_list rows, const PerRow& per_row) {
    std::size_t largest = 0;
    for (const auto& r : rows)
      largest = std::max(largest, r.count * per_row(r.expert));
    return largest;
  }
  template <class Bank, class PerRow> static std::size_t widest(const Bank& bank, const PerRow& per_row) {
    std::size_t largest = 0;
    for (std::size_t e = 0; e < bank.size(); ++e)
      largest = std::max<std::size_t>(largest, per_row(e));
    return largest;
  }
  static std::size_t count(rows_list rows) {
    std::size_t sum = 0;
    for (const auto& r : rows)
      sum += r.count;
    return sum;
  }
};

/// All that forward, with and without saving, and backward compute over batches of some experts; gradients are added
/// to values.
template <class Context>
std::vector<double> passes(const Context& ctx, const three_banks& experts,
                           const std::vector<std::pair<std::size_t, std::size_t>>& rows) {
  support::random_source random(133);
  std::vector<hmoe::matrix<double>> x, dy, y, inferred, saved, dx;
  std::vector<hmoe::expert_rows<double>> training, inference;
  for (const auto& [e, count] : rows) {
    x.push_back(support::random_matrix<double>(random, count, 4));
    dy.push_back(support::random_matrix<double>(random, count, 4));
    for (auto* results : {&y, &inferred, &dx})
      results->emplace_back(count, 4);
    saved.emplace_back(count, experts.saved_per_row(e));
    training.push_back({.expert = e,
                        .count = count,
                        .x = x.back().view(),
                        .y = y.back().view(),
                        .saved = saved.back().view(),
                        .dy = dy.back().view(),
                        .dx = dx.back().view()});
    inference.push_back({.expert = e, .count = count, .x = x.back().view(), .y = inferred.back().view()});
  }
  three_banks gradients = experts;
  experts.forward_rows(ctx, rows_list(training));
  experts.forward_rows(ctx, rows_list(inference));
  experts.backward_rows(ctx, rows_list(training), gradients);

  std::vector<double> all;
  for (const auto* results : {&y, &inferred, &saved, &dx})
    for (const auto& m : *results)
      all.insert(all.end(), m.data(), m.data() + m.size());
  gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
    all.insert(all.end(), view.data(), view.data() + view.size());
  });
  return all;
}

const std::vector<std::vector<std::pair<std::size_t, std::size_t>>> batches_of_three_banks{
    {{0, 5}, {1, 0}, {2, 2 * hmoe::experts::rows_per_tile + 3}, {3, 1}, {4, 0}, {5, 40}},
    {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}},
    {{3, 7}}, // as dispatch::looped has it
    {}};
} // namespace

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
      CHECK(support::same_bits(passes(ctx, experts, rows), expected));
      CHECK(work.multiply_adds == expected_work.multiply_adds); // nothing twice, nothing left out

      // Each bank that is taken gets its rows once in a pass, in the order of the banks; one without rows is not asked.
      for (const bool backward : {false, false, true})
        experts.for_each_bank([&](const auto& bank, hmoe::vector_view<const std::size_t> ids) {
          const std::size_t first = ids[0];
          std::size_t own = 0;
          for (const auto& [e, count] : rows)
            own += e >= first && e < first + bank.size() ? count : 0;
          if (ctx.backend().takes_bank(bank) && own != 0)
            expected_calls.push_back({backward, bank.size(), own});
        });
      CHECK(calls == expected_calls);
    }
  }
}

TEST_CASE("who computes which expert") {
  using enum hmoe::experts::runner;
  const three_banks experts = make_three_banks();
  support::counting_backend::counts work;
  std::vector<bank_call> calls;
  const auto runners = [&](const auto& ctx) {
    std::vector<hmoe::experts::runner> result;
    for (std::size_t e = 0; e < experts.size(); ++e)
      result.push_back(experts.runner_of(ctx, e));
    return result;
  };
  using list = std::vector<hmoe::experts::runner>;
  const auto taking = [&](std::vector<std::size_t> takes) {
    return hmoe::context{at_once{{&work}, std::move(takes), &calls}};
  };
  CHECK(runners(taking({})) == list{tiles, tiles, tiles, tiles, tiles, tiles});
  CHECK(runners(taking({3})) == list{tiles, tiles, backend, backend, backend, tiles});
  CHECK(runners(taking({1, 2})) == list{backend, backend, tiles, tiles, tiles, backend});
  CHECK(runners(hmoe::context{support::counting_backend{&work}}) == list(6, tiles));
}

namespace {
/// A bank that can be trained and also computes all of its experts at once: y = scale_e · x.
class scaling_bank {
public:
  using value_type = double;
  explicit scaling_bank(std::size_t experts, int* forward_rows_calls)
      : scales_(experts, 1), calls_(forward_rows_calls) {
    for (std::size_t e = 0; e < experts; ++e)
      scales_(e, 0) = static_cast<double>(e + 2);
  }
  std::size_t size() const { return scales_.rows(); }
  std::size_t d_model() const { return 4; }
  std::size_t width(std::size_t) const { return 0; }
  std::size_t saved_per_row(std::size_t) const { return 0; }
  std::size_t scratch_per_row(std::size_t) const { return 0; }
  double flops_per_row(std::size_t) const { return 4; }
  std::size_t parameter_count(std::size_t) const { return 1; }
  template <class Math>
  void forward(const Math&, std::size_t e, hmoe::matrix_view<const double> x, hmoe::matrix_view<double> y,
               hmoe::matrix_view<double>) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < 4; ++c)
        y(r, c) += scales_(e, 0) * x(r, c); // added: a second run would show
  }
  template <class Math>
  void backward(const Math&, std::size_t e, hmoe::matrix_view<const double> x, hmoe::matrix_view<const double>,
                hmoe::matrix_view<const double> dy, hmoe::matrix_view<double> dx, hmoe::matrix_view<double>,
                scaling_bank& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < 4; ++c) {
        dx(r, c) = scales_(e, 0) * dy(r, c);
        gradients.scales_(e, 0) += dy(r, c) * x(r, c);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    for (std::size_t e = 0; e < size(); ++e)
      visit(hmoe::parameter_info{"scale", true, e}, scales_.view().row_block(e, 1));
  }
  void initialize(hmoe::seed, std::uint64_t, const hmoe::initialization&) {}

  template <class Context>
  void forward_rows(const Context& ctx, hmoe::vector_view<const hmoe::expert_rows<double>> rows) const {
    ++*calls_;
    for (const auto& r : rows)
      for (std::size_t i = 0; i < r.count; ++i)
        if (r.scatters())
          for (std::size_t c = 0; c < 4; ++c)
            r.y(r.tokens[i], c) += r.output_weight(i) * (scales_(r.expert, 0) * (r.input_weight(i) * r.source(i)[c]));
        else
          forward(ctx.backend(), r.expert, r.x.row_block(i, 1), r.y.row_block(i, 1), {});
  }

private:
  hmoe::matrix<double> scales_;
  int* calls_;
};
} // namespace

TEST_CASE("a bank that offers more than one way is run once, by itself") {
  int calls = 0;
  hmoe::expert_set experts{hmoe::experts::identity_bank<double>{4, 1}, scaling_bank{2, &calls}};
  const hmoe::context ctx{hmoe::backends::reference{}};
  CHECK(experts.runner_of(ctx, 0) == hmoe::experts::runner::tiles);
  CHECK(experts.runner_of(ctx, 2) == hmoe::experts::runner::bank);
  support::random_source random(5);
  const auto x = support::random_matrix<double>(random, 3, 4);
  hmoe::matrix<double> y(3, 4);
  const hmoe::expert_rows<double> work{.expert = 2, .count = 3, .x = x.view(), .y = y.view()};
  experts.forward_rows(ctx, rows_list(&work, 1));
  CHECK(calls == 1);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < 4; ++c)
      CHECK(y(r, c) == 3 * x(r, c));
}

TEST_CASE("rows that scatter: each token's sum in ascending order of experts, whoever computes them") {
  const three_banks experts = make_three_banks();
  support::random_source random(7);
  const auto x = support::random_matrix<double>(random, 5, 4);
  const std::vector<std::vector<hmoe::index_t>> tokens{{0, 2}, {1, 2, 4}, {2}, {}, {0, 1, 2, 3, 4}, {2, 3}};
  std::vector<std::vector<hmoe::index_t>> entries;
  hmoe::index_t next = 0;
  for (const auto& list : tokens) {
    entries.emplace_back();
    for (std::size_t i = 0; i < list.size(); ++i)
      entries.back().push_back(next++);
  }
  const auto weights = support::random_matrix<double>(random, 1, next);
  for (const bool on_input : {false, true}) {
    const auto run = [&](const auto& ctx) {
      hmoe::matrix<double> y(5, 4);
      std::vector<hmoe::expert_rows<double>> work;
      for (std::size_t e = 0; e < tokens.size(); ++e)
        work.push_back({.expert = e,
                        .count = tokens[e].size(),
                        .x = x.view(),
                        .y = y.view(),
                        .tokens = hmoe::vector_view<const hmoe::index_t>(tokens[e]),
                        .entries = hmoe::vector_view<const hmoe::index_t>(entries[e]),
                        .weights = weights.row(0),
                        .weights_on_input = on_input});
      experts.forward_rows(ctx, rows_list(work));
      return y;
    };
    hmoe::matrix<double> expected(5, 4);
    for (std::size_t e = 0; e < tokens.size(); ++e)
      for (std::size_t i = 0; i < tokens[e].size(); ++i) {
        const double weight = weights(0, entries[e][i]);
        hmoe::matrix<double> in(1, 4), out(1, 4), saved(1, experts.saved_per_row(e));
        for (std::size_t c = 0; c < 4; ++c)
          in(0, c) = on_input ? weight * x(tokens[e][i], c) : x(tokens[e][i], c);
        experts.forward(hmoe::backends::reference{}, e, in.view(), out.view(), saved.view());
        for (std::size_t c = 0; c < 4; ++c)
          expected(tokens[e][i], c) += (on_input ? 1 : weight) * out(0, c);
      }
    support::counting_backend::counts work;
    std::vector<bank_call> calls;
    for (const std::vector<std::size_t>& takes : std::vector<std::vector<std::size_t>>{{}, {2}, {1, 2, 3}}) {
      const auto y = run(hmoe::context{at_once{{&work}, takes, &calls}, hmoe::executors::serial{}});
      for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(y.data()[i] == doctest::Approx(expected.data()[i]).epsilon(1e-12));
      CHECK(std::memcmp(y.data(), run(hmoe::context{hmoe::backends::reference{}}).data(), y.size() * sizeof(double)) ==
            0);
    }
  }
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
  for (const auto& [e, rows] : batches_of_three_banks[0])
    most = std::max(most, rows * std::max(experts.saved_per_row(e), experts.scratch_per_row(e)) * sizeof(double));
  CHECK(memory.peak() >= most);
  CHECK(memory.peak() <= most + 4 * hmoe::memory_alignment + 2 * 6 * sizeof(hmoe::expert_rows<double>)); // and lists

  hmoe::moe_layer layer{experts, hmoe::routing::top_k_router<double>{4, 6, 2}};
  layer.initialize(hmoe::seed{3});
  support::random_source random(134);
  for (const std::size_t tokens : {1U, 17U, 600U}) {
    CAPTURE(tokens);
    hmoe::workspace announced;
    const hmoe::context ctx{backend, hmoe::executors::serial{}, announced};
    announced.reserve(layer.workspace_bytes(ctx, tokens));
    const auto x = support::random_matrix<double>(random, tokens, 4);
    hmoe::matrix<double> y(tokens, 4), dx(tokens, 4);
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, x, dx, gradients);
    CHECK(announced.peak() <= layer.workspace_bytes(ctx, tokens));
    CHECK(announced.capacity() == layer.workspace_bytes(ctx, tokens));
  }
}
