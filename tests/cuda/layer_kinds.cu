// SPDX-License-Identifier: MIT
// A layer of several kinds of experts. In half, which has fewer kernels than float.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

#include <limits>
#include <string>
#include <vector>

using namespace cuda_checks;

namespace {

auto all_kinds(std::size_t d) {
  return moe_layer{expert_set{experts::glu_bank<float, experts::silu>{d, {5, 12}, experts::biases::all},
                              experts::mlp_bank<float, experts::gelu>{d, {7, 3}, experts::biases::all},
                              experts::low_rank_bank<float>{d, {2}}, experts::constant_bank<float>{d, 2},
                              experts::identity_bank<float>{d}, experts::zero_bank<float>{d}},
                   routing::threshold_router<float>{d, 9, 0.1}};
}

TEST_CASE("Experts of all kinds in one layer, some of them chosen by threshold [race]") {
  auto host = all_kinds(10);
  check_step<hmoe::half>(host, 23, 3e-3, objective{losses::parameter_penalty{0.1}, losses::importance{0.2}});
}

TEST_CASE("Rows in pieces of their columns give the same bits, in less memory") {
  using S = hmoe::half;
  constexpr std::size_t d = 300, tokens = 7; // pieces of 128, 128 and 44 columns
  auto host = all_kinds(d);
  support::random_source random(5);
  host.visit_parameters([&](const parameter_info&, matrix_view<float> view) { fill_as<S>(random, view, 0.1); });
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto x = to_device<S>(gpu, random_tokens<S>(tokens, d, 6)),
             dy = to_device<S>(gpu, random_tokens<S>(tokens, d, 7));
  struct result {
    matrix<float> y, inference, dx;
    decltype(host.make_gradients()) gradients;
    std::size_t workspace;
  };
  const auto run = [&](std::size_t row_bytes) {
    auto layer = backends::copy_to<S>(gpu, host);
    layer.set_row_bytes(row_bytes);
    backends::device_workspace memory(layer.workspace_bytes(tokens)); // which does not grow
    const context fixed{backends::cuda{}, executors::cuda_stream{}, memory};
    backends::device_matrix<S> y(tokens, d), inference(tokens, d), dx(tokens, d);
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients(fixed);
    layer.forward(fixed, x, inference);
    layer.forward(fixed, x, y, tape);
    layer.backward(fixed, tape, dy, dx, gradients);
    layer.check(fixed);
    result all{to_host(fixed, y), to_host(fixed, inference), to_host(fixed, dx), host.make_gradients(),
               layer.workspace_bytes(tokens)};
    layer.add_gradients(fixed, gradients, all.gradients);
    return all;
  };
  auto whole = run(std::size_t{1} << 20U), pieces = run(0);
  CHECK(relative_error(whole.y, matrix<float>(tokens, d)) > 1);
  CHECK(relative_error(pieces.y, whole.y) == 0);
  CHECK(relative_error(pieces.inference, whole.y) == 0);
  CHECK(relative_error(pieces.dx, whole.dx) == 0);
  CHECK(largest_error(pieces.gradients, whole.gradients).first == 0);
  // 9 experts for each token: floats in columns that are not there at the same time.
  CHECK(whole.workspace - pieces.workspace >= 4 * 9 * tokens * (d - 128) - 256);
}

TEST_CASE("Rows of quantised experts in pieces of their columns give the same bits") {
  using S = bfloat16;
  constexpr std::size_t d = 300, tokens = 7; // pieces of 8, 8 and 3 rows of cells
  moe_layer host{expert_set{experts::glu_bank<float, experts::silu>{d, {40, 25, 64}}},
                 routing::threshold_router<float>{d, 3, 0.1}};
  support::random_source random(8);
  host.visit_parameters([&](const parameter_info&, matrix_view<float> view) { fill_as<S>(random, view, 0.1); });
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto x = to_device<S>(gpu, random_tokens<S>(tokens, d, 9));
  const auto run = [&](std::size_t row_bytes) {
    auto layer = backends::copy_to<S, q8_block>(gpu, host);
    layer.set_row_bytes(row_bytes);
    backends::device_matrix<S> y(tokens, d);
    layer.forward(gpu, x, y);
    layer.check(gpu);
    return to_host(gpu, y);
  };
  const matrix<float> whole = run(std::size_t{1} << 20U), pieces = run(0);
  CHECK(relative_error(whole, matrix<float>(tokens, d)) > 1);
  CHECK(relative_error(pieces, whole) == 0);
}

TEST_CASE("An upload that fails in one bank changes none") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto host = all_kinds(10), broken = all_kinds(10);
  support::random_source random(10);
  for (auto* layer : {&host, &broken})
    layer->visit_parameters(
        [&](const parameter_info&, matrix_view<float> view) { fill_as<hmoe::half>(random, view, 0.1); });
  broken.experts().bank<1>().weights().output(0)(0, 0) = std::numeric_limits<float>::infinity();
  auto layer = backends::copy_to<hmoe::half>(gpu, host);
  CHECK(support::error_of([&] { layer.upload(gpu, broken); }).find("a weight of the second projection is inf") !=
        std::string::npos);
  auto after = broken;
  layer.download(gpu, after);
  std::vector<float> kept, found;
  host.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
    kept.insert(kept.end(), view.data(), view.data() + view.size());
  });
  after.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
    found.insert(found.end(), view.data(), view.data() + view.size());
  });
  CHECK(found == kept);
}

} // namespace
