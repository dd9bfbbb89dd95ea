// SPDX-License-Identifier: MIT
// Whole layers in float beside the host's.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"

using namespace cuda_checks;

namespace {

// Which strategies a copied layer may name.
using backends::cuda_detail::dropless;
static_assert(dropless<dispatch::automatic> && dropless<dispatch::per_token> && dropless<dispatch::blocked<>> &&
              dropless<dispatch::blocked<64>> && dropless<dispatch::sorted<>> && dropless<dispatch::scattered>);
static_assert(!dropless<dispatch::sorted<capacity::by_factor>> && !dropless<dispatch::padded<capacity::by_factor>>);

const objective losses_of_all_kinds{losses::parameter_penalty{0.1}, losses::load_balance{0.05},
                                    losses::router_entropy{0.03}, losses::z{0.01}};

using glu = experts::glu_bank<float, experts::silu>;
using top_k_layer = moe_layer<expert_set<glu>, routing::top_k_router<float>>;

top_k_layer small_layer(std::size_t d, std::vector<std::size_t> widths, std::size_t k) {
  const std::size_t count = widths.size();
  return {expert_set{glu{d, std::move(widths)}}, routing::top_k_router<float>{d, count, k}};
}

TEST_CASE("A layer of unequal SwiGLU experts: forward, losses, backward") {
  auto host = small_layer(24, {3, 17, 9, 32}, 2);
  check_step<float>(host, 37, 2e-5, losses_of_all_kinds);
}

TEST_CASE("No token, one token, and experts without any [race]") {
  auto host = small_layer(12, {3, 7, 5, 1, 2, 4}, 1);
  for (const std::size_t tokens : {0U, 1U, 3U})
    check_step<float>(host, tokens, 2e-5, losses_of_all_kinds);
}

TEST_CASE("All tokens on one expert") {
  auto host = small_layer(9, {5, 33, 2}, 1);
  randomize<float>(host, 5);
  // Expert 1 wins by what all tokens have in common.
  matrix<float> x = random_tokens<float>(41, 9, 6);
  for (std::size_t t = 0; t < x.rows(); ++t)
    x(t, 0) = 1;
  host.router().score().weight()(1, 0) = 50;
  matrix<float> y(41, 9);
  host.forward(cpu, x, y);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to(gpu, host);
  backends::device_matrix<float> device_y(41, 9);
  auto tape = layer.make_tape(41);
  layer.forward(gpu, to_device<float>(gpu, x), device_y, tape);
  CHECK(relative_error(to_host(gpu, device_y), y) < 2e-5);
  const auto assigned = tape.read_assignment(gpu.executor());
  for (const index_t e : assigned.experts())
    CHECK(e == 1);
}

TEST_CASE("More entries than there is room for are reported, and memory is left alone") {
  auto host = small_layer(8, {4, 4, 4}, 2);
  randomize<float>(host, 7);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto layer = backends::copy_to(gpu, host);
  const matrix<float> x = random_tokens<float>(10, 8, 8);
  matrix<float> y(10, 8);
  host.forward(cpu, x, y);
  const auto device_x = to_device<float>(gpu, x);
  backends::device_matrix<float> device_y(10, 8), device_dx(10, 8);

  auto tape = layer.make_tape(10, 13); // 20 are needed
  auto gradients = layer.make_gradients(gpu);
  layer.forward(gpu, device_x, device_y, tape);
  layer.backward(gpu, tape, std::as_const(device_y), device_dx, gradients);
  CHECK(support::error_of([&] { layer.check(gpu); }).find("had 20 pairs of token and expert") != std::string::npos);
  layer.check(gpu); // reported once
  const matrix<float> got = to_host(gpu, device_y);
  for (std::size_t t = 0; t < 6; ++t) // the first six tokens fit
    CHECK(relative_error(vector_view<const float>(got.row(t)), vector_view<const float>(y.row(t))) < 2e-5);
  for (std::size_t t = 6; t < 10; ++t)
    for (const float value : got.row(t))
      CHECK(value == 0);

  layer.set_max_entries(19);
  layer.forward(gpu, device_x, device_y);
  CHECK_THROWS_AS(layer.check(gpu), error);
  layer.set_max_entries(0);
  layer.forward(gpu, device_x, device_y);
  layer.check(gpu);
}

TEST_CASE("Errors come before anything is queued") {
  auto host = small_layer(8, {4, 4, 4}, 2);
  randomize<float>(host, 9);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to(gpu, host);
  backends::device_matrix<float> x(4, 8), narrow(4, 7), y(4, 8), few(3, 8);
  x.set_zero(gpu.executor());
  const auto in = std::as_const(x).view();
  auto tape = layer.make_tape(3);
  auto gradients = layer.make_gradients(gpu);
  CHECK(support::error_of([&] { layer.forward(gpu, std::as_const(narrow), y); }) ==
        "hmoe: a token has 7 values, the layer's d_model is 8");
  CHECK(support::error_of([&] { layer.forward(gpu, in, few); }) == "hmoe: y is 3 x 8, needed is 4 x 8");
  CHECK(support::error_of([&] { layer.forward(gpu, in, x.view()); }) ==
        "hmoe: y overlaps the input; they must be different memory");
  CHECK(support::error_of([&] { layer.forward(gpu, in, y, tape); }) ==
        "hmoe: a batch of 4 tokens for a tape of up to 3");
  CHECK(support::error_of([&] { layer.backward(gpu, tape, in, y, gradients); }) ==
        "hmoe: backward needs a tape that a forward pass of this layer has filled");
  const auto other = backends::copy_to(gpu, small_layer(8, {4, 5, 4}, 2));
  layer.forward(gpu, in.row_block(0, 3), few, tape);
  auto other_gradients = other.make_gradients(gpu);
  CHECK(support::error_of([&] {
          layer.backward(gpu, tape, in.row_block(0, 3), few, other_gradients);
        }).find("the gradients are not those of this layer") != std::string::npos);

  backends::device_workspace memory(layer.workspace_bytes(4));
  const context fixed{backends::cuda{}, executors::cuda_stream{}, memory};
  auto wide_tape = layer.make_tape(4);
  layer.forward(fixed, in, y);
  layer.forward(fixed, in, y, wide_tape);
  layer.evaluate(fixed, losses_of_all_kinds, wide_tape);
  layer.backward(fixed, wide_tape, in, y, gradients);
  CHECK(memory.capacity() == layer.workspace_bytes(4));
}

TEST_CASE("A logit that is not finite is reported") {
  auto host = small_layer(8, {4, 4, 4}, 2);
  randomize<float>(host, 10);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to(gpu, host);
  matrix<float> x = random_tokens<float>(4, 8, 11);
  x(2, 3) = std::numeric_limits<float>::infinity();
  backends::device_matrix<float> y(4, 8);
  layer.forward(gpu, to_device<float>(gpu, x), y);
  CHECK(support::error_of([&] { layer.check(gpu); }) == "hmoe: the router's logits of token 2 are not all finite");
  host.router().set_on_non_finite(routing::non_finite::propagate);
  const auto lenient = backends::copy_to(gpu, host);
  lenient.forward(gpu, to_device<float>(gpu, x), y);
  lenient.check(gpu);
  const matrix<float> result = to_host(gpu, y);
  CHECK(std::isnan(result(2, 0)));
  CHECK(std::isfinite(result(1, 0)));
}

} // namespace
