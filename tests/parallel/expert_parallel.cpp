// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include "parallel/on_ranks.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <memory_resource>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace {
using rank_of_group = hmoe::communicators::threads::member;
using hmoe::dispatch::expert_parallel;
constexpr std::size_t whole_batch = 61;

template <class Inner>
support::part_result<double> run_on_ranks(std::size_t ranks, const hmoe::expert_placement& placed, bool on_input,
                                          const Inner& inner, std::size_t chunks = 1, bool share_memory = true) {
  return support::run_on_threads(
      support::parts_of(whole_batch, ranks), on_input,
      [&](const rank_of_group& self) { return expert_parallel{self, placed, inner, hmoe::dispatch::overlap{chunks}}; },
      share_memory);
}
/// dispatch::sorted, which notes the experts that it runs in training, and fails where one comes twice.
struct watched_sorted : hmoe::dispatch::sorted<> {
  std::set<hmoe::index_t>* in_forward;
  std::set<hmoe::index_t>* in_backward;
  std::size_t* passes;

  template <class Context, class Experts, class T>
  void forward(const Context& ctx, const Experts& experts, hmoe::matrix_view<const T> x, hmoe::matrix_view<T> y,
               hmoe::tape<T>& tape) const {
    if (tape.recording())
      note(tape, *in_forward);
    hmoe::dispatch::sorted<>::forward(ctx, experts, x, y, tape);
  }
  template <class Context, class Experts, class T>
  void backward(const Context& ctx, const Experts& experts, hmoe::tape<T>& tape, hmoe::matrix_view<const T> dy,
                hmoe::matrix_view<T> dx, hmoe::vector_view<T> d_weights, Experts& gradients) const {
    note(tape, *in_backward);
    hmoe::dispatch::sorted<>::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }
  template <class T> void note(const hmoe::tape<T>& tape, std::set<hmoe::index_t>& seen) const {
    ++*passes;
    const std::set<hmoe::index_t> own(tape.assignment().experts().begin(), tape.assignment().experts().end());
    for (const hmoe::index_t e : own)
      hmoe::require(seen.insert(e).second, "expert ", e, " is run twice");
  }
};
double largest_difference_of(const support::part_result<double>& a, const support::part_result<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i)
    for (std::size_t j = 0; j < a.gradients[i].size(); ++j)
      largest = std::max(largest, std::abs(a.gradients[i][j] - b.gradients[i][j]));
  return largest;
}
} // namespace

TEST_CASE("on one rank it keeps the laws of dispatch") {
  const hmoe::communicators::single self;
  // In two chunks, which inference has.
  CHECK(hmoe::testing::check_dispatch(expert_parallel{self, hmoe::placement::contiguous(5, 1),
                                                      hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{2}})
            .text() == "");
}

TEST_CASE("on any number of ranks and by any placement results have the bits of one process") {
  for (const bool on_input : {false, true}) {
    CAPTURE(on_input);
    const auto experts = support::make_unequal_experts<double>();
    const auto expected =
        support::run_part<double>(hmoe::context{hmoe::backends::reference{}}, hmoe::dispatch::sorted<>{}, experts,
                                  whole_batch, 0, whole_batch, on_input);
    for (const std::size_t ranks : {1U, 2U, 3U, 8U}) {
      CAPTURE(ranks);
      const auto check = [&](const hmoe::expert_placement& placed, bool replicas, const auto& inner,
                             std::size_t chunks = 1, bool share_memory = true) {
        const auto got = run_on_ranks(ranks, placed, on_input, inner, chunks, share_memory);
        CHECK(support::same_bits(got.y, expected.y));
        CHECK(support::same_bits(got.inferred, expected.y));
        CHECK(support::same_bits(got.dx, expected.dx));
        CHECK(support::same_bits(got.d_weights, expected.d_weights));
        if (replicas)
          CHECK(largest_difference_of(got, expected) < 1e-13);
        else
          CHECK(got.gradients == expected.gradients);
      };
      using namespace hmoe::placement;
      check(contiguous(support::parallel_experts, ranks), false, hmoe::dispatch::sorted<>{});
      check(round_robin(support::parallel_experts, ranks), false, hmoe::dispatch::per_token{});
      check(support::with_replicas(ranks), true, hmoe::dispatch::sorted<>{});
      check(support::with_replicas(ranks), true, hmoe::dispatch::sorted<>{}, 1, false);
      check(support::with_replicas(ranks), true, hmoe::dispatch::sorted<>{}, 3);
      check(round_robin(support::parallel_experts, ranks), false, hmoe::dispatch::sorted<>{}, 4);
    }
  }
}

TEST_CASE("a layer on ranks: nothing of the layer changes, batches vary, tapes are used again") {
  const auto router = [] {
    return hmoe::routing::top_k_router<double>(support::parallel_d, support::parallel_experts, 2);
  };
  hmoe::moe_layer whole{support::make_unequal_experts<double>(), router()};
  whole.initialize(hmoe::seed{5}, {.router_stddev = 1});
  support::random_source random(66);
  const auto x = support::random_matrix<double>(random, 60, support::parallel_d);
  hmoe::matrix<double> y(60, support::parallel_d), dx(60, support::parallel_d), part_y(60, support::parallel_d),
      part_dx(60, support::parallel_d);
  const hmoe::context one{hmoe::backends::reference{}};
  auto tape = whole.make_tape(60);
  auto gradients = whole.make_gradients();
  whole.forward(one, x, y, tape);
  whole.backward(one, tape, y, dx, gradients);
  std::vector<std::vector<double>> router_gradients(3);
  hmoe::communicators::threads(3).run([&](const rank_of_group& self) {
    hmoe::moe_layer layer{whole.experts(), whole.router(),
                          expert_parallel{self, hmoe::placement::round_robin(support::parallel_experts, 3),
                                          hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{3}}};
    // In no more memory than is announced.
    std::vector<std::byte> block(layer.workspace_bytes(hmoe::context{hmoe::backends::reference{}}, 20) +
                                 hmoe::memory_alignment);
    hmoe::workspace memory(std::span<std::byte>(block), std::pmr::null_memory_resource());
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
    auto own_tape = layer.make_tape(20);
    for (const std::size_t tokens : {7U, 0U, 20U}) {
      auto own = layer.make_gradients();
      const std::size_t first = 20 * self.rank();
      const auto rows = [&](auto& m) { return m.view().row_block(first, tokens); };
      layer.forward(ctx, rows(x), rows(part_y), own_tape);
      layer.backward(ctx, own_tape, rows(part_y), rows(part_dx), own);
      own.router.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
        self.all_reduce(std::span<double>(view.data(), view.size()));
        router_gradients[self.rank()].assign(view.data(), view.data() + view.size());
      });
    }
  });
  CHECK(support::same_bits(part_y, y));
  CHECK(support::same_bits(part_dx, dx));
  gradients.router.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
    for (std::size_t i = 0; i < view.size(); ++i)
      CHECK(router_gradients[0][i] == doctest::Approx(view.data()[i]).epsilon(1e-12));
  });
  CHECK(router_gradients[0] == router_gradients[2]);
}

TEST_CASE("a limit to the rows of a rank: memory for these is announced, and more are an error on every rank") {
  constexpr std::size_t tokens = 12, k = 2, d = support::parallel_d;
  support::random_source random(67);
  const auto x = support::random_matrix<double>(random, 2 * tokens, d);
  for (const bool share_memory : {true, false})
    for (const std::size_t chunks : {1U, 3U}) {
      CAPTURE(share_memory);
      CAPTURE(chunks);
      std::vector<std::size_t> rows(2);
      std::vector<std::vector<std::string>> texts(2);
      hmoe::communicators::threads(2, share_memory).run([&](const rank_of_group& self) {
        const auto make = [&](hmoe::dispatch::most_rows limit) {
          hmoe::moe_layer layer{support::make_unequal_experts<double>(),
                                hmoe::routing::top_k_router<double>(d, support::parallel_experts, k),
                                expert_parallel{self, hmoe::placement::round_robin(support::parallel_experts, 2),
                                                hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{chunks}, limit}};
          layer.initialize(hmoe::seed{8}, {.router_stddev = 1});
          return layer;
        };
        const auto own = x.view().row_block(tokens * self.rank(), tokens);
        hmoe::matrix<double> y(tokens, d), expected(tokens, d), dx(tokens, d);
        const hmoe::context plain{hmoe::backends::reference{}};
        const auto unlimited = make({});
        auto gradients = unlimited.make_gradients();
        auto tape = unlimited.make_tape(tokens);
        unlimited.forward(plain, own, expected, tape);
        const auto loads = tape.plan().offsets(); // experts 0, 2, 4 and 6 are on rank 0
        std::vector<std::size_t> counts(2, 0);
        for (std::size_t e = 0; e < support::parallel_experts; ++e)
          counts[e % 2] += loads[e + 1] - loads[e];
        self.all_reduce(std::span<std::size_t>(counts));
        rows[self.rank()] = counts[self.rank()];

        // Exactly what comes: it suffices, and takes less memory than what might come.
        const auto exact = make({counts[self.rank()]});
        const std::size_t announced = exact.workspace_bytes(plain, tokens);
        hmoe::require(announced < unlimited.workspace_bytes(plain, tokens), "a limit saves memory");
        std::vector<std::byte> block(announced + hmoe::memory_alignment);
        hmoe::workspace memory(std::span<std::byte>(block), std::pmr::null_memory_resource());
        const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
        exact.forward(ctx, own, y);
        texts[self.rank()].emplace_back(support::same_bits(y, expected) ? "same" : "other");
        exact.forward(ctx, own, y, tape);
        exact.backward(ctx, tape, own, dx, gradients);
        texts[self.rank()].emplace_back(support::same_bits(y, expected) ? "same" : "other");
        // One less on rank 1.
        const auto less = make({counts[self.rank()] - self.rank()});
        texts[self.rank()].push_back(support::error_of([&] { less.forward(ctx, own, y); }));
        texts[self.rank()].push_back(support::error_of([&] { less.forward(ctx, own, y, tape); }));
      });
      CHECK(rows[0] + rows[1] == 2 * tokens * k);
      const std::string reason = "rank 1 gets " + std::to_string(rows[1]) + " rows for its experts, its limit is " +
                                 std::to_string(rows[1] - 1) +
                                 ": route smaller batches, place experts by their load, or raise dispatch::most_rows";
      const std::string own = "hmoe: expert_parallel: " + reason,
                        told = "hmoe: expert_parallel: rank 1 has failed: expert_parallel: " + reason;
      CHECK(texts[1] == std::vector<std::string>{"same", "same", own, own});
      CHECK(texts[0] == std::vector<std::string>{"same", "same", told, told});
    }
  CHECK(support::error_of([&] {
          hmoe::moe_layer alone{support::make_unequal_experts<double>(),
                                hmoe::routing::top_k_router<double>(d, support::parallel_experts, k),
                                expert_parallel{hmoe::communicators::single{},
                                                hmoe::placement::contiguous(support::parallel_experts, 1),
                                                hmoe::dispatch::sorted<>{},
                                                {},
                                                hmoe::dispatch::most_rows{47}}};
          alone.initialize(hmoe::seed{8});
          hmoe::matrix<double> y(2 * tokens, d);
          alone.forward(hmoe::context{hmoe::backends::reference{}}, x, y);
        }) == "hmoe: expert_parallel: rank 0 gets 48 rows for its experts, its limit is 47: route smaller batches, "
              "place experts by their load, or raise dispatch::most_rows");
}

TEST_CASE("training in chunks runs each expert once, on all its rows") {
  std::vector<std::set<hmoe::index_t>> forward(2), backward(2);
  std::vector<std::size_t> passes(2);
  hmoe::communicators::threads(2).run([&](const rank_of_group& self) {
    watched_sorted inner{{}, &forward[self.rank()], &backward[self.rank()], &passes[self.rank()]};
    const expert_parallel strategy{self, hmoe::placement::round_robin(support::parallel_experts, 2), inner,
                                   hmoe::dispatch::overlap{3}};
    const hmoe::context ctx{hmoe::backends::reference{}};
    support::run_part<double>(ctx, strategy, support::make_unequal_experts<double>(), 20, 10 * self.rank(),
                              10 * self.rank() + 10, false);
  });
  CHECK(passes == std::vector<std::size_t>{6, 6});    // three forward, three backward
  CHECK(forward[0] == std::set<hmoe::index_t>{0, 2}); // no token goes to 4 and 6
  CHECK(forward[1] == std::set<hmoe::index_t>{1, 3, 5});
  CHECK(backward == forward);
}

TEST_CASE("ranks that do not fit together are told so, on every rank") {
  const auto errors = [](std::size_t ranks, const auto& f) {
    std::vector<std::string> texts(ranks);
    hmoe::communicators::threads(ranks).run(
        [&](const rank_of_group& self) { texts[self.rank()] = support::error_of([&] { f(self); }); });
    return texts;
  };
  auto texts = errors(2, [](const rank_of_group& self) {
    const expert_parallel refused{self, self.rank() == 0 ? hmoe::placement::contiguous(7, 2)
                                                         : hmoe::placement::round_robin(7, 2)};
  });
  CHECK(texts[0] == "hmoe: expert_parallel: ranks 1 and 0 have different placements, of 7 and 7 experts");
  CHECK(texts[1] == "hmoe: expert_parallel: ranks 0 and 1 have different placements, of 7 and 7 experts");
  texts = errors(2, [](const rank_of_group& self) {
    const expert_parallel refused{self, hmoe::placement::contiguous(7, 1 + self.rank())};
  });
  CHECK(texts[1] == "hmoe: expert_parallel: the placement of rank 0 is for 1 ranks, the communicator has 2");
  CHECK(texts[0] == texts[1]);

  texts = errors(2, [](const rank_of_group& self) {
    const expert_parallel refused{self, hmoe::placement::contiguous(7, 2), hmoe::dispatch::sorted<>{},
                                  hmoe::dispatch::overlap{2 + self.rank()}};
  });
  CHECK(texts[0] == "hmoe: expert_parallel: rank 1 overlaps 3 chunks, rank 0 overlaps 2");
  CHECK(texts[1] == "hmoe: expert_parallel: rank 0 overlaps 2 chunks, rank 1 overlaps 3");
  CHECK(support::error_of([] {
          const expert_parallel refused{hmoe::communicators::single{}, hmoe::placement::contiguous(7, 1),
                                        hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{8}};
        }) == "hmoe: expert_parallel: 8 chunks: 1 to 7 are possible");

  // Layers that differ.
  texts = errors(2, [](const rank_of_group& self) {
    const std::size_t d = 4 + self.rank();
    hmoe::expert_set experts{hmoe::experts::mlp_bank<double, hmoe::experts::relu>(d, {2, 3})};
    const hmoe::context ctx{hmoe::backends::reference{}};
    const hmoe::workspace::scope scope(ctx.workspace());
    hmoe::tape<double> tape;
    tape.assignment().resize_tokens(2);
    hmoe::matrix<double> x(2, d), y(2, d);
    expert_parallel{self, hmoe::placement::contiguous(2, 2)}.forward(ctx, experts, std::as_const(x).view(), y.view(),
                                                                     tape);
  });
  CHECK(texts[0] == "hmoe: expert_parallel: rank 1 runs a layer of d_model 5 with values of 8 bytes, rank 0 one of "
                    "d_model 4 with values of 8");
  CHECK(texts[1] == "hmoe: expert_parallel: rank 0 runs a layer of d_model 4 with values of 8 bytes, rank 1 one of "
                    "d_model 5 with values of 8");
}
