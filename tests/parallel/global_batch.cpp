// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/global_batch.hpp>
#include <hmoe/parallel/gradients.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>
#include <hmoe/routing/controllers/top_p_controller.hpp>
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/shared/always_on.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory_resource>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace {
using global_rank = hmoe::communicators::threads::member;
using global_selection = hmoe::routing::biased<double, hmoe::routing::top_p>;
using global_router = hmoe::routing::router<hmoe::routing::linear<double, hmoe::routing::sigmoid>, global_selection,
                                            hmoe::routing::renormalized, hmoe::routing::always_on>;
constexpr std::size_t global_d = 6, global_routed = 5, global_tokens = 17, global_steps = 3;
const std::vector<std::size_t> global_begin{0, 4, 4, 17};          // NOLINT: of each rank's tokens; the second has none
const std::vector<hmoe::index_t> global_sequences{0, 2, 4, 9, 17}; // NOLINT: none over two ranks

/// Memory that ends after so many pieces.
struct global_memory : std::pmr::memory_resource {
  std::size_t left = static_cast<std::size_t>(-1);

private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (left == 0)
      throw std::bad_alloc();
    --left;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* p, std::size_t bytes, std::size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(p, bytes, alignment);
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

/// What training of a layer comes to that looks at the routing of all tokens.
struct seen_by_rank {
  std::vector<double> losses, sinks, dx, state;
  bool operator==(const seen_by_rank&) const = default;
};
auto global_layer_parts() {
  hmoe::expert_set experts{hmoe::experts::mlp_bank<double, hmoe::experts::relu>(global_d, {3, 1, 4, 2, 5, 2})};
  return std::pair(std::move(experts),
                   global_router(hmoe::routing::linear<double, hmoe::routing::sigmoid>(global_d, global_routed),
                                 global_selection(global_routed, hmoe::routing::top_p{0.9}), {},
                                 hmoe::routing::always_on{1}));
}
/// Trains on the tokens [first, last). evaluate(objective, layer, tape) gives the report, trace() the trace that
/// controllers see; sum(gradients) makes those of all tokens.
template <class Layer, class Evaluate, class Trace, class Sum>
seen_by_rank look(Layer& layer, std::size_t first, std::size_t last, const Evaluate& evaluate, const Trace& trace,
                  const Sum& sum) {
  namespace losses = hmoe::losses;
  const hmoe::objective objective{losses::load_balance{0.1},
                                  losses::parameter_penalty{0.2},
                                  losses::router_entropy{0.3},
                                  losses::importance{0.4},
                                  losses::z{0.5},
                                  losses::sequence_balance{0.6}};
  support::random_source random(91);
  const auto all = support::random_matrix<double>(random, global_tokens, global_d, 2);
  const auto x = all.view().row_block(first, last - first);
  std::vector<std::uint8_t> valid(global_tokens, 1);
  valid[1] = valid[12] = 0;
  std::vector<hmoe::index_t> sequences;
  for (const hmoe::index_t s : global_sequences)
    if (s >= first && s <= last)
      sequences.push_back(static_cast<hmoe::index_t>(s - first));
  hmoe::routing_inputs<double> inputs;
  inputs.valid = {valid.data() + first, last - first};
  inputs.sequence_offsets = {sequences.data(), sequences.size()};
  hmoe::matrix<double> y(x.rows(), global_d), dx(x.rows(), global_d);
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(global_tokens);
  auto gradients = layer.make_gradients();
  losses::sparsity_controller sparsity(global_routed, 2.0, 1e-3);
  hmoe::routing::top_p_controller top_p({.target = 2});
  seen_by_rank seen;
  for (std::size_t step = 0; step < global_steps; ++step) {
    gradients.set_zero();
    layer.forward(ctx, x, y, tape, inputs);
    const auto report = evaluate(objective, layer, tape);
    for (const auto& term : report.terms)
      seen.losses.push_back(term.value);
    for (const auto& sink : {tape.trace().d_logits(), tape.trace().d_probabilities()})
      seen.sinks.insert(seen.sinks.end(), sink.data(), sink.data() + sink.size());
    layer.backward(ctx, tape, y, dx, gradients);
    seen.dx.insert(seen.dx.end(), dx.data(), dx.data() + dx.size());
    sum(gradients);
    // What moves without gradients.
    const hmoe::router_trace<double>& whole = trace(tape);
    std::vector<double> load(global_routed, 0.0);
    hmoe::routing::load_in_tokens(whole.tokens_per_expert(), hmoe::vector_view<double>(load.data(), load.size()));
    hmoe::routing::update_bias_by_sign(layer.router().selection_policy().bias(),
                                       hmoe::vector_view<const double>(load.data(), load.size()), 1e-2);
    sparsity.add(whole);
    seen.state.insert(seen.state.end(), {sparsity.update(), top_p.update(whole)});
    for (const double b : layer.router().selection_policy().bias())
      seen.state.push_back(b);
  }
  return seen;
}
} // namespace

TEST_CASE("losses, biases and controllers over the tokens of all ranks are those of one process, bit for bit") {
  auto [experts, router] = global_layer_parts();
  hmoe::moe_layer whole{experts, router};
  whole.initialize(hmoe::seed{8}, {.router_stddev = 1});
  hmoe::losses::load_accumulator expected_load(global_routed);
  std::vector<double> expected_gradient;
  const seen_by_rank expected = look(
      whole, 0, global_tokens,
      [&](const auto& objective, const auto& layer, auto& tape) {
        expected_load.add(layer.routing(tape));
        return objective.evaluate(layer, tape);
      },
      [](auto& tape) -> const hmoe::router_trace<double>& { return tape.trace(); },
      [&](auto& gradients) {
        gradients.router.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
          expected_gradient.insert(expected_gradient.end(), view.data(), view.data() + view.size());
        });
      });
  CHECK(expected.losses.size() == 6 * global_steps);
  for (const double loss : expected.losses)
    CHECK(loss > 0);

  const std::size_t ranks = global_begin.size() - 1;
  std::vector<seen_by_rank> seen(ranks);
  std::vector<std::vector<double>> gradient(ranks);
  hmoe::communicators::threads(ranks).run([&](const global_rank& self) {
    const std::size_t r = self.rank();
    const auto placed = hmoe::placement::round_robin(experts.size(), ranks);
    hmoe::moe_layer layer{whole.experts(), router, hmoe::dispatch::expert_parallel{self, placed}};
    layer.initialize(hmoe::seed{8}, {.router_stddev = 1});
    hmoe::parallel::global_batch<double> all;
    hmoe::losses::load_accumulator load(global_routed), by_counts(global_routed);
    seen[r] = look(
        layer, global_begin[r], global_begin[r + 1],
        [&](const auto& objective, const auto& own, auto& tape) {
          by_counts.add(own.routing(tape), hmoe::training::summed_over(self));
          auto report = hmoe::parallel::evaluate(self, objective, own, tape, all);
          load.add(all.batch(own.routing(tape).widths));
          return report;
        },
        [&](auto& tape) -> const hmoe::router_trace<double>& {
          std::vector<double> sum(global_routed, 0.0);
          const hmoe::vector_view<double> view(sum.data(), sum.size());
          hmoe::routing::load_in_tokens(std::as_const(tape).trace().tokens_per_expert(), view);
          hmoe::training::sum_load(self, view);
          for (std::size_t e = 0; e < global_routed; ++e)
            hmoe::require(sum[e] == all.trace().tokens_per_expert()[e], "expert ", e, " has ", sum[e], " tokens");
          return all.trace();
        },
        [&](auto& gradients) {
          hmoe::training::sum_gradients(self, placed, gradients);
          gradients.router.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
            gradient[r].insert(gradient[r].end(), view.data(), view.data() + view.size());
          });
        });
    for (std::size_t e = 0; e < global_routed; ++e)
      hmoe::require(load.counts()[e] == expected_load.counts()[e] && by_counts.counts()[e] == load.counts()[e],
                    "expert ", e, " was counted otherwise");
    hmoe::require(load.tokens() == expected_load.tokens(), "tokens were counted otherwise");
  });
  // Rows of the ranks, step by step.
  seen_by_rank joined;
  for (std::size_t step = 0; step < global_steps; ++step)
    for (std::size_t r = 0; r < ranks; ++r) {
      const auto append = [&](std::vector<double>& to, const std::vector<double>& from) {
        const auto size = static_cast<std::ptrdiff_t>(from.size() / global_steps);
        to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(step) * size,
                  from.begin() + static_cast<std::ptrdiff_t>(step + 1) * size);
      };
      append(joined.dx, seen[r].dx);
    }
  CHECK(joined.dx == expected.dx);
  for (std::size_t r = 0; r < ranks; ++r) {
    CHECK(seen[r].losses == expected.losses);
    CHECK(seen[r].state == expected.state);
    for (std::size_t i = 0; i < expected_gradient.size(); ++i)
      CHECK(gradient[r][i] == doctest::Approx(expected_gradient[i]).epsilon(1e-10));
    CHECK(gradient[r] == gradient[0]);
  }
  // The sinks of rank 2's tokens in the first step: logits, then probabilities.
  const std::size_t own = (global_begin[3] - global_begin[2]) * global_routed, all = global_tokens * global_routed;
  for (std::size_t i = 0; i < own; ++i) {
    CHECK(seen[2].sinks[i] == expected.sinks[global_begin[2] * global_routed + i]);
    CHECK(seen[2].sinks[own + i] == expected.sinks[all + global_begin[2] * global_routed + i]);
  }
}

TEST_CASE("traces of different layers are refused, on every rank") {
  std::vector<std::string> texts(2);
  hmoe::communicators::threads(2).run([&](const global_rank& self) {
    hmoe::router_trace<float> trace;
    trace.resize(3, 4 + self.rank(), 0, true);
    hmoe::assignment<float> assigned;
    assigned.resize_tokens(3);
    hmoe::parallel::global_batch<float> all;
    texts[self.rank()] = support::error_of([&] { all.gather(self, trace, assigned); });
  });
  CHECK(texts[0] == "hmoe: global_batch: rank 1 routes to 5 experts with 0 saved values per token, rank 0 to 4 with 0");
  CHECK(texts[1] == texts[0]);
}

TEST_CASE("where memory ends on one rank the batch of all ranks is refused on every rank") {
  std::size_t pieces = 0;
  std::vector<std::string> errors(2);
  do {
    CAPTURE(pieces);
    global_memory memory;
    auto* const before = std::pmr::set_default_resource(&memory);
    hmoe::parallel::global_batch<double> tight;
    std::pmr::set_default_resource(before);
    memory.left = pieces++;
    hmoe::communicators::threads(2).run([&](const global_rank& self) {
      auto [experts, router] = global_layer_parts();
      const hmoe::moe_layer layer{experts, router};
      support::random_source random(92);
      const auto x = support::random_matrix<double>(random, 5, global_d);
      hmoe::matrix<double> y(5, global_d);
      auto tape = layer.make_tape(5);
      layer.forward(hmoe::context{hmoe::backends::reference{}}, x, y, tape);
      hmoe::parallel::global_batch<double> ample;
      const std::exception_ptr error = hmoe::exception_of([&] {
        (self.rank() == 1 ? tight : ample).gather(self, std::as_const(tape).trace(), std::as_const(tape).assignment());
      });
      errors[self.rank()] = error == nullptr ? "no error" : hmoe::communicators::text_of(error);
    });
    if (errors[1] != "no error") {
      CHECK(errors[1] == "std::bad_alloc");
      CHECK(errors[0] == "hmoe: global_batch: rank 1 has failed: std::bad_alloc");
    }
  } while (errors[1] != "no error" && pieces < 100);
  CHECK(errors[0] == "no error");
  CHECK(pieces > 3);
}
