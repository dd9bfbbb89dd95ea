// SPDX-License-Identifier: MIT
// Policies and experts of a user on the device: the selection of the README as it stands in the example, what is
// refused, experts by functions over a row and by kernels.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/routing/selections/two_level.hpp>

#include "layer_checks.hpp"
#include "readme_selection.hpp"
#include "routed.cuh"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace kernels = hmoe::backends::cuda_detail;

/// Returns nonsense for tokens whose first probability is the largest: `kind` says which.
struct broken {
  int kind;
  std::size_t max_selected(std::size_t) const { return 2; }
  HMOE_HOST_DEVICE std::size_t operator()(vector_view<const float> p, vector_view<index_t> chosen) const {
    chosen[0] = 1;
    chosen[1] = 0;
    if (routing::next_preferred(p, no_index) != 0)
      return 2;
    if (kind == 0)
      return 3;
    chosen[0] = kind == 1 ? static_cast<index_t>(p.size()) : 0;
    return 2;
  }
};

/// An expert of a user: y_i = scale_i sin(x_i + shift_i), with the same functions on host and device.
struct wave {
  using value_type = float;
  matrix<float> scale, shift;

  explicit wave(std::size_t d) : scale(1, d), shift(1, d) {}
  std::size_t d_model() const { return scale.cols(); }
  std::size_t width() const { return 3; }
  void forward(matrix_view<const float> x, matrix_view<float> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c)
        y(r, c) = scale(0, c) * std::sin(x(r, c) + shift(0, c));
  }
  void backward(matrix_view<const float> x, matrix_view<const float> dy, matrix_view<float> dx, wave& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c) {
        dx(r, c) = dy(r, c) * scale(0, c) * std::cos(x(r, c) + shift(0, c));
        gradients.scale(0, c) += dy(r, c) * std::sin(x(r, c) + shift(0, c));
        gradients.shift(0, c) += dx(r, c);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"scale"}, scale.view());
    visit(parameter_info{"shift", /*decay=*/false}, shift.view());
  }
};
template <> struct hmoe::backends::device_expert<wave> {
  template <class S>
  HMOE_HOST_DEVICE static void forward(vector_view<const float> weights, vector_view<const S> x, vector_view<float> y) {
    for (std::size_t c = 0; c < x.size(); ++c)
      y[c] = weights[c] * std::sin(static_cast<float>(x[c]) + weights[x.size() + c]);
  }
  template <class S>
  HMOE_HOST_DEVICE static void backward(vector_view<const float> weights, vector_view<const S> x,
                                        vector_view<const S> dy, vector_view<float> dx, vector_view<float> d_weights) {
    const std::size_t d = x.size();
    for (std::size_t c = 0; c < d; ++c) {
      const float at = static_cast<float>(x[c]) + weights[d + c], g = static_cast<float>(dy[c]);
      dx[c] = g * weights[c] * std::cos(at);
      d_weights[c] += g * std::sin(at);
      d_weights[d + c] += dx[c];
    }
  }
};

/// One with kernels: y = tilt · x, a single weight.
struct tilted {
  using value_type = float;
  matrix<float> tilt{1, 1};
  std::size_t d = 0;

  explicit tilted(std::size_t size) : d(size) {}
  std::size_t d_model() const { return d; }
  void forward(matrix_view<const float> x, matrix_view<float> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c)
        y(r, c) = tilt(0, 0) * x(r, c);
  }
  void backward(matrix_view<const float> x, matrix_view<const float> dy, matrix_view<float> dx,
                tilted& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c) {
        dx(r, c) = tilt(0, 0) * dy(r, c);
        gradients.tilt(0, 0) += x(r, c) * dy(r, c);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(parameter_info{"tilt"}, tilt.view()); }
};
/// to[slot] = tilt · from[slot]; a block for each expert.
template <class S> __global__ void tilt_rows(kernels::own_expert_rows rows, kernels::row_source<S> from, float* to) {
  const index_t e = blockIdx.x;
  for (index_t slot = rows.offsets[e]; slot < rows.offsets[e + 1]; ++slot)
    for (index_t c = threadIdx.x; c < rows.d; c += blockDim.x)
      to[std::size_t{slot} * rows.d + c] = rows.weights[e] * kernels::to_float(kernels::row_of(from, slot)[c]);
}
template <class S>
__global__ void tilt_gradients(kernels::own_expert_rows rows, kernels::row_source<S> x, kernels::row_source<S> dy,
                               float* d_weights) {
  const index_t e = threadIdx.x;
  if (e >= rows.experts)
    return;
  for (index_t slot = rows.offsets[e]; slot < rows.offsets[e + 1]; ++slot)
    for (index_t c = 0; c < rows.d; ++c)
      d_weights[e] += kernels::to_float(kernels::row_of(x, slot)[c]) * kernels::to_float(kernels::row_of(dy, slot)[c]);
}
template <> struct hmoe::backends::device_expert<tilted> {
  template <class S>
  static void launch_forward(cudaStream_t stream, const kernels::own_expert_rows& rows, kernels::row_source<S> x,
                             float* outputs) {
    kernels::launch{"tilt_rows", stream, rows.experts, 32}(tilt_rows<S>, rows, x, outputs);
  }
  template <class S>
  static void launch_backward(cudaStream_t stream, const kernels::own_expert_rows& rows, kernels::row_source<S> x,
                              kernels::row_source<S> dy, float* dx, float* d_weights) {
    kernels::launch{"tilt_rows", stream, rows.experts, 32}(tilt_rows<S>, rows, dy, dx);
    kernels::launch{"tilt_gradients", stream, 1, 32}(tilt_gradients<S>, rows, x, dy, d_weights);
  }
};

namespace {

/// The device's choices are those of the selection on the host, given the device's probabilities.
template <class Selection> void check(const Selection& selection, std::size_t experts, std::size_t tokens) {
  routing::router<routing::linear<float>, Selection> router{16, experts, selection};
  router.initialize(seed{4}, 0, {.router_stddev = 0.3});
  const on_device::batch<float> x(tokens, 16, 5);
  const on_device::parameters parameters(router);
  static_assert(!kernels::routes_by_warp<decltype(parameters.view)>);
  on_device::routed device(tokens, experts, experts, tokens * router.max_selected());
  on_device::route(parameters.view, x, device);
  const auto p = device.probabilities.download();
  const auto offsets = device.offsets.download(), ids = device.experts_of.download();
  INFO("experts ", experts, ", tokens ", tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<index_t> chosen(router.max_selected());
    std::vector<float> scratch(routing::selection_scratch(selection, experts));
    chosen.resize(routing::select_row(selection, vector_view<const float>(p.data() + t * experts, experts),
                                      vector_view<index_t>(chosen), vector_view<float>(scratch)));
    std::sort(chosen.begin(), chosen.end());
    CHECK(chosen == std::vector<index_t>(ids.begin() + offsets[t], ids.begin() + offsets[t + 1]));
  }
  CHECK(device.raised().invalid_choice == 0);
  // Weights are those of the host, too.
  const on_device::on_host host(router, x.values);
  const auto weights = device.weights.download();
  REQUIRE(host.assigned.size() == offsets[tokens]);
  for (std::size_t a = 0; a < host.assigned.size(); ++a)
    CHECK(weights[a] == doctest::Approx(host.assigned.weights()[a]).epsilon(1e-5));
}

} // namespace

TEST_CASE("the selection of the README") {
  for (const std::size_t tokens : {0, 1, 40})
    for (const std::size_t experts : {1, 2, 8, 70})
      check(near_best{.share = 0.5, .most = 3}, experts, tokens);
}

TEST_CASE("selections of the library without a form for warps") {
  const std::size_t sizes[] = {3, 5, 1};
  check(routing::two_level(sizes, 2, 2), 9, 30);
  std::vector<double> costs;
  for (int e = 0; e < 12; ++e)
    costs.push_back(e * 7 % 5);
  check(routing::cost_aware_top_p(costs, 0.7, 6.0), 12, 30);
  routing::biased<float, near_best> near_biased(8, near_best{});
  for (std::size_t e = 0; e < 8; ++e)
    near_biased.bias()[e] = static_cast<float>(e % 3) / 16;
  check(near_biased, 8, 30);
}

TEST_CASE("more experts than a warp can keep [race]") {
  routing::router<routing::linear<float>, routing::top_k<>> router{4, 1100, {3}};
  router.initialize(seed{4}, 0, {.router_stddev = 0.5});
  const on_device::batch<float> x(3, 4, 5);
  const on_device::parameters parameters(router);
  CHECK_FALSE(kernels::fits_warps(parameters.view));
  on_device::routed device(3, 1100, 1100, 9);
  on_device::route(parameters.view, x, device);
  const on_device::on_host host(router, x.values);
  CHECK(device.experts_of.download() ==
        std::vector<index_t>(host.assigned.experts().begin(), host.assigned.experts().end()));
  CHECK(device.plan_tokens.download() == std::vector<index_t>(host.plan.tokens().begin(), host.plan.tokens().end()));
}

TEST_CASE("a selection that returns nonsense is reported, and its token goes nowhere") {
  for (const int kind : {0, 1, 2}) {
    routing::router<routing::linear<float>, broken> router{8, 4, broken{kind}};
    router.initialize(seed{4}, 0, {.router_stddev = 0.5});
    const on_device::batch<float> x(20, 8, 5);
    const on_device::parameters parameters(router);
    on_device::routed device(20, 4, 4, 40);
    on_device::route(parameters.view, x, device);
    const auto p = device.probabilities.download();
    const auto offsets = device.offsets.download(), ids = device.experts_of.download();
    index_t last = 0;
    for (index_t t = 0; t < 20; ++t) {
      const bool nonsense = routing::next_preferred(vector_view<const float>(p.data() + t * 4, 4), no_index) == 0;
      if (nonsense)
        last = t + 1;
      REQUIRE(offsets[t + 1] - offsets[t] == (nonsense ? 0 : 2));
      if (!nonsense)
        CHECK(std::vector<index_t>(ids.begin() + offsets[t], ids.begin() + offsets[t] + 2) ==
              std::vector<index_t>{0, 1});
    }
    CHECK(last != 0);
    CHECK(device.raised().invalid_choice == last);
  }
}

TEST_CASE("experts of a user, by functions and by kernels [race]") {
  constexpr std::size_t d = 11;
  moe_layer host{expert_set{experts::bank_of{std::vector<wave>{wave(d), wave(d), wave(d)}},
                            experts::bank_of{std::vector<tilted>{tilted(d), tilted(d)}}},
                 routing::top_k_router<float>{d, 5, 2}};
  cuda_checks::check_step<float>(host, 9, 2e-5, objective{losses::parameter_penalty{0.1}});
  cuda_checks::check_step<bfloat16>(host, 4, 2e-2);

  // They train, and their weights come back.
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  cuda_checks::randomize<float>(host, 3);
  auto layer = backends::copy_to(gpu, host);
  auto back = host, reference = host;
  layer.download(gpu, back);
  CHECK(cuda_checks::largest_error(back, host).first == 0);
  auto drawn = host.make_gradients();
  std::vector<parameter<float>> list;
  reference.append_parameters(drawn, list);
  support::random_source random(4);
  for (const auto& tensor : list)
    for (float& g : tensor.gradient)
      g = static_cast<float>(random.real());
  auto gradients = layer.make_gradients(gpu);
  layer.set_gradients(gpu, gradients, drawn);
  const auto check_optimizer = [&](auto host_optimizer, auto optimizer, double tolerance) {
    for (int step = 0; step < 3; ++step) {
      host_optimizer.step(list, 0.1);
      optimizer.step(gpu, layer, gradients, 0.1);
    }
    layer.download(gpu, back);
    CHECK(cuda_checks::largest_error(back, reference).first < tolerance); // shift has no weight decay
  };
  const training::sgd_options momentum{.momentum = 0.9, .weight_decay = 0.5};
  check_optimizer(training::sgd<float>(momentum, list), backends::cuda_sgd(gpu, momentum, layer), 1e-6);
  const training::adamw_options decay{.weight_decay = 0.5};
  check_optimizer(training::adamw<float>(decay, list), backends::cuda_adamw(gpu, decay, layer), 1e-5);
}
