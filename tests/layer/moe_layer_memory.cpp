// SPDX-License-Identifier: MIT
// The announced workspace suffices, and with it and make_tape no pass touches the heap.
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include "layer/small_layer.hpp"
#include "support/allocation_count.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::matrix;
using support::d;

namespace {
template <class Layer> void check_memory(const Layer& layer) {
  support::random_source random(21);
  const std::size_t most = 300;
  const auto x = support::random_matrix<double>(random, most, d), dy = support::random_matrix<double>(random, most, d);
  matrix<double> y(most, d), dx(most, d);
  const hmoe::objective aux{hmoe::losses::load_balance{}, hmoe::losses::parameter_penalty{},
                            hmoe::losses::router_entropy{}, hmoe::losses::z{}};
  auto gradients = layer.make_gradients();

  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  memory.reserve(layer.workspace_bytes(ctx, most));
  auto tape = layer.make_tape(most);
  // The very first pass, then shorter ones, then the longest again.
  for (const std::size_t tokens : {most, std::size_t{1}, std::size_t{0}, std::size_t{131}, most}) {
    CAPTURE(tokens);
    const auto in = x.view().row_block(0, tokens), out_gradient = dy.view().row_block(0, tokens);
    const auto out = y.view().row_block(0, tokens), in_gradient = dx.view().row_block(0, tokens);
    CHECK(support::allocations_in([&] { layer.forward(ctx, in, out); }) == 0);
    CHECK(support::allocations_in([&] { layer.forward(ctx, in, out, tape); }) == 0);
    CHECK(support::allocations_in([&] { (void)aux.evaluate(layer, tape); }) == 0);
    CHECK(support::allocations_in([&] { layer.backward(ctx, tape, out_gradient, in_gradient, gradients); }) == 0);
  }
  CHECK(memory.peak() <= layer.workspace_bytes(ctx, most));
  CHECK(memory.capacity() == layer.workspace_bytes(ctx, most));

  // What is announced for several workers suffices for them; for small batches too, where alignment weighs most.
  for (const std::size_t tokens : {1U, 2U, 17U, 300U}) {
    hmoe::workspace shared;
    const hmoe::context parallel{hmoe::backends::reference{}, hmoe::executors::openmp{3}, shared};
    shared.reserve(layer.workspace_bytes(parallel, tokens));
    const auto in = x.view().row_block(0, tokens), out_gradient = dy.view().row_block(0, tokens);
    const auto out = y.view().row_block(0, tokens), in_gradient = dx.view().row_block(0, tokens);
    layer.forward(parallel, in, out);
    layer.forward(parallel, in, out, tape);
    layer.backward(parallel, tape, out_gradient, in_gradient, gradients);
    CAPTURE(tokens);
    CHECK(shared.peak() <= layer.workspace_bytes(parallel, tokens));
    CHECK(shared.capacity() == layer.workspace_bytes(parallel, tokens));
  }
}

template <class Dispatch> void check_memory_of(Dispatch dispatch) {
  check_memory(support::small_layer(routing::top_k_router<double>(d, 5, 2), 1, dispatch));
  check_memory(support::small_layer(routing::top_p_router<double>(d, 5, 0.9), 2, dispatch));
}
} // namespace

TEST_CASE("the heap is counted") {
  CHECK(support::allocations_in([] { matrix<double> m(3, 3); }) == (support::counts_allocations ? 1 : 0));
}
TEST_CASE("dense allocates nothing") { check_memory_of(hmoe::dispatch::dense{}); }
TEST_CASE("looped allocates nothing") { check_memory_of(hmoe::dispatch::looped{}); }
TEST_CASE("sorted allocates nothing") { check_memory_of(hmoe::dispatch::sorted{}); }

TEST_CASE("a workspace that is too small grows once and then stays") {
  const auto layer = support::small_layer(routing::top_k_router<double>(d, 5, 2), 3, hmoe::dispatch::sorted{});
  support::random_source random(22);
  const auto x = support::random_matrix<double>(random, 100, d);
  matrix<double> y(100, d);
  const hmoe::context ctx{hmoe::backends::reference{}};
  layer.forward(ctx, x, y);
  CHECK(support::allocations_in([&] { layer.forward(ctx, x, y); }) == 0);
}

namespace {
/// y_i = a_i · sin(x_i), as a user writes an expert: without flops_per_row, width or initialize.
class wave {
public:
  using value_type = float;
  explicit wave(std::size_t d_model) : amplitude_(1, d_model) { amplitude_.view().row(0)[0] = 1; }
  [[nodiscard]] std::size_t d_model() const { return amplitude_.cols(); }
  void forward(hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i)
        y(r, i) = amplitude_(0, i) * std::sin(x(r, i));
  }
  void backward(hmoe::matrix_view<const float> x, hmoe::matrix_view<const float> dy, hmoe::matrix_view<float> dx,
                wave& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i) {
        dx(r, i) = dy(r, i) * amplitude_(0, i) * std::cos(x(r, i));
        gradients.amplitude_(0, i) += dy(r, i) * std::sin(x(r, i));
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"amplitude"}, amplitude_.view());
  }

private:
  matrix<float> amplitude_;
};
} // namespace

TEST_CASE("with an expert of a user, no pass and no question about its cost touches the heap") {
  const std::size_t width = 256, tokens = 64;
  std::vector<wave> waves(8, wave(width));
  std::vector<hmoe::experts::any_expert<float>> held(4, wave(width));
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::bank_of<wave>(waves), hmoe::experts::bank_of{std::move(held)}},
                        routing::top_k_router<float>{width, 12, 2}};
  layer.initialize(hmoe::seed{3});
  support::random_source random(22);
  const auto x = support::random_matrix<float>(random, tokens, width);
  matrix<float> y(tokens, width), dx(tokens, width);
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  const auto step = [&] {
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, x, dx, gradients);
  };
  step();
  CHECK(support::allocations_in(step) == 0);
  double flops = 0;
  CHECK(support::allocations_in([&] {
          for (std::size_t e = 0; e < 12; ++e)
            flops += layer.experts().flops_per_row(e) + static_cast<double>(layer.experts().parameter_count(e));
        }) == 0);
  CHECK(flops == 12 * 3 * width);
  CHECK(support::allocations_in([&] {
          for (const hmoe::expert_cost expert : layer.cost().experts)
            flops -= expert.flops_per_token + static_cast<double>(expert.parameters);
          flops -= layer.cost().activated(tape.assignment()).flops;
        }) == 0);
  CHECK(flops == -layer.cost().activated(tape.assignment()).flops);
}

TEST_CASE("a const layer shows its parameters") {
  const hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>{3, {2, 5}}},
                              routing::top_k_router<float>{3, 2, 1}};
  std::size_t values = 0;
  CHECK(support::allocations_in([&] {
          layer.visit_parameters(
              [&](const hmoe::parameter_info&, hmoe::matrix_view<const float> view) { values += view.size(); });
        }) == 0);
  CHECK(values == layer.cost().parameters());
}
