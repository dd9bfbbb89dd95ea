// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/on_ranks.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {
using memory_rank = hmoe::communicators::threads::member;
using chosen_experts = std::vector<std::vector<hmoe::index_t>>; ///< by token

/// Experts that return what they read, and take no memory.
struct without_memory : hmoe::dispatch::sorted<> {
  template <class Context, class Experts, class T>
  void forward(const Context&, const Experts&, hmoe::matrix_view<const T> x, hmoe::matrix_view<T> y,
               hmoe::tape<T>&) const {
    std::copy_n(x.data(), x.size(), y.data());
  }
  template <class Context, class Experts, class T>
  void backward(const Context&, const Experts&, hmoe::tape<T>&, hmoe::matrix_view<const T> dy, hmoe::matrix_view<T> dx,
                hmoe::vector_view<T> d_weights, Experts&) const {
    std::copy_n(dy.data(), dy.size(), dx.data());
    std::ranges::fill(d_weights, T(0));
  }
  template <class Context, class Experts, class T>
  void lay_out_forward(const Context&, const Experts&, hmoe::tape<T>&, const hmoe::batch_limits&) const {}
  template <class Context, class Experts, class T>
  void lay_out_backward(const Context&, const Experts&, hmoe::tape<T>&, const hmoe::batch_limits&) const {}
};

/// Runs `pass` in exactly the memory that lay_out(dry) takes.
template <class LayOut, class Pass> void run_in_announced(const LayOut& lay_out, const Pass& pass) {
  const hmoe::context plain{hmoe::backends::reference{}};
  const hmoe::dry_context dry(plain);
  {
    const hmoe::workspace::scope scope(dry.workspace());
    lay_out(dry);
  }
  hmoe::buffer<std::byte> block(dry.workspace().peak());
  hmoe::workspace memory(std::span<std::byte>(block.data(), block.size()), std::pmr::null_memory_resource());
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  const hmoe::workspace::scope scope(memory);
  pass(ctx);
}

/// Empty where a batch with these experts runs in what is announced for it; else the errors of its passes.
template <class Strategy>
std::string faults_in_announced(const Strategy& strategy, const chosen_experts& chosen, bool on_input) {
  constexpr std::size_t d = support::parallel_d;
  auto experts = support::make_unequal_experts<double>(), gradients = experts;
  const std::size_t tokens = chosen.size();
  const hmoe::matrix<double> x(tokens, d);
  hmoe::matrix<double> y(tokens, d);
  std::string faults;
  const auto note = [&](const char* pass, const std::string& text) {
    faults += text == "no error" ? "" : std::string(pass) + ": " + text + "; ";
  };
  for (const bool recording : {false, true}) {
    hmoe::tape<double> tape(std::pmr::get_default_resource(), recording);
    tape.set_weights_on_input(on_input);
    auto& assigned = tape.assignment();
    assigned.resize_tokens(tokens);
    for (std::size_t t = 0; t < tokens; ++t)
      assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(assigned.offsets()[t] + chosen[t].size());
    assigned.resize_entries();
    for (std::size_t t = 0; t < tokens; ++t)
      std::ranges::copy(chosen[t], assigned.experts().begin() + assigned.offsets()[t]);
    std::ranges::fill(assigned.weights(), 0.5);
    const hmoe::batch_limits limits{tokens, assigned.size(), experts.size(), false};
    const auto lay_out = [&](auto&& pass) {
      return [&, pass](const auto& dry) {
        hmoe::workspace of_tape{hmoe::dry_run{}};
        const hmoe::workspace::scope scope(of_tape);
        hmoe::tape<double> dry_tape(&of_tape, recording);
        dry_tape.set_weights_on_input(on_input);
        pass(dry, dry_tape);
      };
    };
    note(recording ? "recorded" : "inference", support::error_of([&] {
           strategy.run_pass([&] {
             run_in_announced(
                 lay_out([&](const auto& dry, auto& to) { strategy.lay_out_forward(dry, experts, to, limits); }),
                 [&](const auto& ctx) { strategy.forward(ctx, experts, x.view(), y.view(), tape); });
           });
         }));
    if (!recording || faults != "")
      continue;
    tape.input() = x;
    std::vector<double> d_weights(assigned.size());
    note("backward", support::error_of([&] {
           strategy.run_pass([&] {
             run_in_announced(
                 lay_out([&](const auto& dry, auto& to) { strategy.lay_out_backward(dry, experts, to, limits); }),
                 [&](const auto& ctx) {
                   strategy.backward(ctx, experts, tape, x.view(), y.view(), hmoe::vector_view<double>(d_weights),
                                     gradients);
                 });
           });
         }));
  }
  return faults;
}
} // namespace

TEST_CASE("what is announced suffices wherever entries go, with a limit of just the rows that come") {
  // All experts on rank 1; each of its parts gets a row of each rank, fewer bytes than whole cache lines.
  const hmoe::expert_placement on_1(2, std::vector<std::vector<hmoe::replica>>(7, {{1, 1.0}}));
  const chosen_experts each{{0}, {1}, {2}, {3}, {4}, {5}, {6}};
  // Of a rank's two parts one sends all entries and gets none, and the other gets all and sends none.
  const auto in_turn = hmoe::placement::round_robin(7, 2);
  const chosen_experts first(400, {1}), second(400, {4});
  struct batch {
    const hmoe::expert_placement& placed;
    std::vector<chosen_experts> chosen; ///< by rank
    std::vector<std::size_t> rows;      ///< that come to each rank
    std::size_t chunks;
  };
  for (const batch& b : {batch{on_1, {each, each}, {0, 14}, 7}, batch{in_turn, {first, second}, {400, 400}, 2}})
    for (const bool on_input : {false, true})
      for (const bool limited : {true, false}) {
        CAPTURE(b.chunks);
        CAPTURE(on_input);
        CAPTURE(limited);
        std::vector<std::string> faults(2), faults_summed(2), less(2);
        hmoe::communicators::threads(2).run([&](const memory_rank& self) {
          const std::size_t rank = self.rank();
          const hmoe::dispatch::overlap chunks{b.chunks};
          const auto limit = limited ? hmoe::dispatch::most_rows{b.rows[rank]} : hmoe::dispatch::most_rows{};
          faults[rank] =
              faults_in_announced(hmoe::dispatch::expert_parallel{self, b.placed, without_memory{}, chunks, limit},
                                  b.chosen[rank], on_input);
          faults_summed[rank] = faults_in_announced(
              hmoe::dispatch::expert_parallel_summed{self, b.placed, without_memory{}, chunks, limit}, b.chosen[rank],
              on_input);
          const hmoe::dispatch::most_rows one_less{b.rows[rank] - rank};
          if (limited)
            less[rank] = faults_in_announced(
                hmoe::dispatch::expert_parallel_summed{self, b.placed, without_memory{}, chunks, one_less},
                b.chosen[rank], on_input);
        });
        CHECK(faults[0] == "");
        CHECK(faults[1] == "");
        CHECK(faults_summed[0] == "");
        CHECK(faults_summed[1] == "");
        if (limited) {
          CHECK(less[1].starts_with("inference: hmoe: expert_parallel_summed: rank 1 gets "));
          CHECK(less[0].starts_with("inference: hmoe: expert_parallel_summed: rank 1 has failed: "
                                    "expert_parallel_summed: rank 1 gets "));
        }
      }
}
