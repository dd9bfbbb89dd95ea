// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/routing/router.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Passes of a layer on several ranks that go wrong on one of them.
namespace support {

/// The identity, which throws at a row that begins with a certain value, or a large gradient.
struct fragile_expert {
  using value_type = double;
  static constexpr double bad_input = 4242, bad_gradient = 1e9;
  std::size_t d = 4;

  [[nodiscard]] std::size_t d_model() const noexcept { return d; }
  static void forward(hmoe::matrix_view<const double> x, hmoe::matrix_view<double> y) {
    for (std::size_t r = 0; r < x.rows(); ++r) {
      hmoe::require(x(r, 0) != bad_input, "an expert cannot take 4242");
      for (std::size_t c = 0; c < x.cols(); ++c)
        y(r, c) = x(r, c);
    }
  }
  static void backward(hmoe::matrix_view<const double>, hmoe::matrix_view<const double> dy,
                       hmoe::matrix_view<double> dx, fragile_expert&) {
    for (std::size_t r = 0; r < dy.rows(); ++r) {
      hmoe::require(dy(r, 0) < 1e6, "an expert cannot take such a gradient");
      for (std::size_t c = 0; c < dy.cols(); ++c)
        dx(r, c) = dy(r, c);
    }
  }
  template <class Visitor> static void visit_parameters(Visitor&&) noexcept {}
};

/// Runs tasks on the calling thread; call number `left` throws.
struct failing_executor {
  std::size_t* left;

  [[nodiscard]] static constexpr std::size_t concurrency() noexcept { return 1; }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    hmoe::require((*left)-- != 0, "the executor gives up");
    hmoe::executors::serial{}.for_each(count, task);
  }
};

/// What is wrong on this rank; empty when everything is as it should be. make(ranks, placed) is the strategy,
/// which errors call `who`. Collective.
template <class Communicator, class Make>
std::vector<std::string> faults_of_failing_passes(const Communicator& ranks, const Make& make, std::size_t steps = 40,
                                                  std::string_view who = "expert_parallel") {
  constexpr std::size_t d = 4, tokens = 6, experts = 5;
  const std::size_t last = ranks.size() - 1;
  std::vector<std::string> faults;
  const bool failing = ranks.rank() == last;
  // Every token goes to all experts. The fragile one is on the last rank.
  hmoe::moe_layer layer{
      hmoe::expert_set{hmoe::experts::mlp_bank<double, hmoe::experts::relu>(d, {3, 1, 2, 4}), fragile_expert{d}},
      hmoe::routing::top_k_router<double>(d, experts, experts),
      make(ranks, hmoe::placement::contiguous(experts, ranks.size()))};
  layer.initialize(hmoe::seed{3});
  random_source random(71 + ranks.rank());
  const auto x = random_matrix<double>(random, tokens, d);
  hmoe::matrix<double> y(tokens, d), dx(tokens, d), bad(tokens, d);
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();

  const auto expect = [&](std::string_view what, const std::string& got, const std::string& own) {
    const std::string expected =
        failing ? "hmoe: " + own
                : "hmoe: " + std::string(who) + ": rank " + std::to_string(last) + " has failed: " + own;
    if (got != (own.empty() ? "no error" : expected))
      faults.push_back(std::string(what) + ": " + got);
  };
  const auto train = [&](const auto& with, hmoe::matrix_view<const double> in, hmoe::matrix_view<const double> dy,
                         hmoe::matrix_view<double> out) {
    layer.forward(with, in, out, tape);
    layer.backward(with, tape, dy, dx, gradients);
  };
  const auto spoiled = [&](double value, bool here) {
    bad = x;
    if (here)
      bad(2, 0) = value;
    return std::as_const(bad).view();
  };
  // Before anything has travelled: the router, and the layer's own checks.
  expect("NaN", error_of([&] { layer.forward(ctx, spoiled(std::numeric_limits<double>::quiet_NaN(), failing), y); }),
         "the router's logit of token 2 for expert 0 is nan");
  expect("shape of y", error_of([&] {
           hmoe::matrix<double> small(tokens - 1, d);
           layer.forward(ctx, x, failing ? small.view() : y.view());
         }),
         "y is 5 x 4, needed is 6 x 4");
  expect("none", error_of([&] { train(ctx, x, x, y); }), "");
  expect("shape of dy", error_of([&] {
           hmoe::matrix<double> small(tokens - 1, d);
           layer.backward(ctx, tape, failing ? std::as_const(small).view() : x.view(), dx, gradients);
         }),
         "dy has 5 rows, the tape holds 6 tokens");
  // Where the expert is, by a row of the first rank's.
  const bool first = ranks.rank() == 0;
  expect("expert", error_of([&] { layer.forward(ctx, spoiled(fragile_expert::bad_input, first), y); }),
         "an expert cannot take 4242");
  expect("expert, recorded", error_of([&] { train(ctx, spoiled(fragile_expert::bad_input, first), x, y); }),
         "an expert cannot take 4242");
  expect("none", error_of([&] { layer.forward(ctx, x, y, tape); }), "");
  expect("expert, backward",
         error_of([&] { layer.backward(ctx, tape, spoiled(fragile_expert::bad_gradient, first), dx, gradients); }),
         "an expert cannot take such a gradient");
  // Memory that ends at many places of the passes.
  expect("none", error_of([&] { train(ctx, x, x, y); }), "");
  const std::size_t needed = ctx.workspace().peak();
  std::size_t failures = 0;
  for (std::size_t i = 0; i <= steps; ++i) {
    std::vector<std::byte> block(failing ? needed * i / steps + 64 : 8 * needed);
    hmoe::workspace memory(std::span<std::byte>(block), std::pmr::null_memory_resource());
    const hmoe::context small{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
    const std::string got = error_of([&] { train(small, x, x, y); });
    const std::string_view mark = failing ? "hmoe: the workspace" : "has failed: the workspace";
    if (got != "no error" && got.find(mark) == got.npos)
      faults.push_back("memory: " + got);
    failures += got != "no error" ? 1 : 0;
  }
  if (failures < steps / 2 || failures == steps + 1)
    faults.push_back("memory ran out " + std::to_string(failures) + " times");
  // An executor that gives up at any of its calls.
  std::size_t left = 0;
  const hmoe::context giving_up{hmoe::backends::reference{}, failing_executor{&left}};
  bool all_run = false;
  for (std::size_t i = 0; i < 60 && !all_run; ++i) {
    left = failing ? i : 1000;
    const std::string got = error_of([&] { train(giving_up, x, x, y); });
    std::uint64_t calls_left = failing && left < 1000 ? 1 : 0; // nothing was thrown
    ranks.template all_reduce<std::uint64_t>(std::span(&calls_left, 1));
    all_run = calls_left != 0;
    expect("executor", got, all_run ? "" : "the executor gives up");
  }
  if (!all_run)
    faults.push_back("passes take more than 60 calls of the executor");
  // And all go on.
  hmoe::matrix<double> again(tokens, d);
  layer.forward(ctx, x, y);
  expect("NaN",
         error_of([&] { layer.forward(ctx, spoiled(std::numeric_limits<double>::quiet_NaN(), failing), again); }),
         "the router's logit of token 2 for expert 0 is nan");
  layer.forward(ctx, x, again);
  for (std::size_t i = 0; i < y.size(); ++i)
    if (again.data()[i] != y.data()[i])
      faults.push_back("value " + std::to_string(i) + " is another after errors");
  return faults;
}

} // namespace support
