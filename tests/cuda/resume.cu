// SPDX-License-Identifier: MIT
// Training in 16 bits: weights that are uploaded stay, training goes on from a checkpoint bit for bit, steps run in
// CUDA graphs, and everything happens on the device of the context.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

using S = bfloat16;
using layer_type = moe_layer<expert_set<experts::mlp_bank<float, experts::relu>>,
                             routing::router<routing::linear<float>, routing::top_k<2>>>;
constexpr std::size_t tokens = 9, d = 13;

/// Float values, which bfloat16 does not hold.
layer_type make_layer(std::uint64_t seed) {
  layer_type layer{expert_set{experts::mlp_bank<float, experts::relu>{d, {5, 9, 4}, experts::biases::all}}, {d, 3}};
  randomize<float>(layer, seed);
  return layer;
}

/// A layer on the device with what it needs to train.
struct trainer {
  const backends::cuda_context& gpu;
  decltype(backends::copy_to<S>(gpu, make_layer(0))) layer;
  backends::cuda_gradients gradients;
  backends::cuda_adamw optimizer;
  decltype(layer.make_tape(tokens)) tape;
  backends::device_matrix<S> x, y, dx;
  backends::device_value<double> rate;

  trainer(const backends::cuda_context& ctx, const layer_type& host)
      : gpu(ctx), layer(backends::copy_to<S>(ctx, host)), gradients(layer.make_gradients(ctx)),
        optimizer(ctx, {.weight_decay = 0.1}, layer), tape(layer.make_tape(tokens)),
        x(to_device<S>(ctx, random_tokens<S>(tokens, d, 5))), rate(ctx.executor(), 0.01) {
    y.resize_for_overwrite(ctx.executor(), tokens, d);
    dx.resize_for_overwrite(ctx.executor(), tokens, d);
  }
  void step() {
    gradients.set_zero(gpu.executor());
    layer.forward(gpu, std::as_const(x), y, tape);
    layer.backward(gpu, tape, std::as_const(y), dx, gradients);
    optimizer.step(gpu, layer, gradients, rate);
  }
  [[nodiscard]] layer_type weights() const {
    layer_type host = make_layer(0);
    layer.download(gpu, host);
    return host;
  }
};

/// Bit for bit.
bool same(layer_type a, layer_type b) { return largest_error(a, b).first == 0; }

TEST_CASE("Uploaded weights outlast optimiser steps, and come back bit for bit") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer training(gpu, make_layer(1));
  CHECK_FALSE(same(training.weights(), make_layer(1))); // rounded on the way there: masters begin with what is stored
  training.step();
  layer_type other = make_layer(2);
  training.layer.upload(gpu, other);
  CHECK(same(training.weights(), other));
  training.gradients.set_zero(gpu.executor());
  training.rate.set(gpu.executor(), 0);
  training.optimizer.step(gpu, training.layer, training.gradients, training.rate);
  CHECK(same(training.weights(), other));
  // What passes read is the rounding of the masters.
  const auto fresh = backends::copy_to<S>(gpu, other);
  backends::device_matrix<S> y(tokens, d), again(tokens, d);
  fresh.forward(gpu, std::as_const(training.x), y);
  training.layer.forward(gpu, std::as_const(training.x), again);
  CHECK(relative_error(to_host(gpu, again), to_host(gpu, y)) == 0);
}

TEST_CASE("Training goes on from a checkpoint bit for bit") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer whole(gpu, make_layer(3));
  whole.step();
  whole.step();
  layer_type weights = make_layer(0); // the checkpoint
  auto gradients = weights.make_gradients();
  std::vector<parameter<float>> list;
  weights.append_parameters(gradients, list);
  training::adamw<float> state({}, list);
  whole.layer.download(gpu, weights);
  whole.optimizer.download(gpu, whole.layer, weights, state);
  CHECK(state.steps() == 2);
  whole.step();
  whole.step();

  trainer resumed(gpu, make_layer(4));
  resumed.optimizer.resume(gpu, resumed.layer, weights, state);
  resumed.step();
  CHECK(resumed.optimizer.steps(gpu) == 3);
  resumed.step();
  CHECK(same(resumed.weights(), whole.weights()));
  CHECK_FALSE(same(resumed.weights(), weights));
  training::adamw<float> first({}, list), second({}, list);
  whole.optimizer.download(gpu, whole.layer, weights, first);
  resumed.optimizer.download(gpu, resumed.layer, weights, second);
  for (std::size_t i = 0; i < list.size(); ++i) {
    CHECK(std::ranges::equal(first.first_moment(i), second.first_moment(i)));
    CHECK(std::ranges::equal(first.second_moment(i), second.second_moment(i)));
  }
}

/// What a stream gets, as a graph.
struct captured {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;

  template <class F> captured(const backends::cuda_context& gpu, F&& work) {
    backends::cuda_detail::require_cuda(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal),
                                        "begin");
    work();
    backends::cuda_detail::require_cuda(cudaStreamEndCapture(gpu.stream(), &graph), "end");
    backends::cuda_detail::require_cuda(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
  }
  captured(const captured&) = delete;
  captured& operator=(const captured&) = delete;
  ~captured() {
    (void)cudaGraphExecDestroy(ready);
    (void)cudaGraphDestroy(graph);
  }
  void launch(const backends::cuda_context& gpu) const {
    backends::cuda_detail::require_cuda(cudaGraphLaunch(ready, gpu.stream()), "launch");
  }
};

TEST_CASE("A captured training step gives the bits of launched ones") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer launched(gpu, make_layer(5)), replayed(gpu, make_layer(5));
  replayed.step(); // once before it is captured: the workspace has its size
  launched.step();
  const captured step(gpu, [&] { replayed.step(); });
  CHECK_FALSE(same(launched.weights(), make_layer(5)));
  CHECK(same(replayed.weights(), launched.weights())); // capturing runs nothing
  for (const double rate : {0.01, 0.02, 0.005}) {
    launched.rate.set(gpu.executor(), rate);
    launched.step();
    replayed.rate.set(gpu.executor(), rate);
    step.launch(gpu);
    CHECK(same(replayed.weights(), launched.weights()));
  }
  CHECK(replayed.optimizer.steps(gpu) == 4);
  CHECK(relative_error(to_host(gpu, replayed.y), to_host(gpu, launched.y)) == 0);
}

TEST_CASE("Captured inference reads what stands in its input when it is launched") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to<S>(gpu, make_layer(6));
  auto x = to_device<S>(gpu, random_tokens<S>(tokens, d, 1));
  backends::device_matrix<S> y(tokens, d), expected(tokens, d);
  layer.forward(gpu, std::as_const(x), y);
  const captured pass(gpu, [&] { layer.forward(gpu, std::as_const(x), y); });
  const auto other = to_device<S>(gpu, random_tokens<S>(tokens, d, 2));
  layer.forward(gpu, other, expected);
  backends::cuda_detail::require_cuda(
      cudaMemcpyAsync(x.data(), other.data(), x.size() * sizeof(S), cudaMemcpyDeviceToDevice, gpu.stream()), "copy");
  pass.launch(gpu);
  layer.check(gpu);
  CHECK(relative_error(to_host(gpu, y), to_host(gpu, expected)) == 0);
}

TEST_CASE("Errors that others left are neither reported nor cleared") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  CHECK(cudaSetDevice(9999) == cudaErrorInvalidDevice);
  trainer training(gpu, make_layer(7));
  training.step();
  training.layer.check(gpu);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(support::error_of([] {
          backends::cuda_detail::require_cuda(cudaErrorIllegalAddress, "launch of ", "combine_rows");
        }).find("a kernel that ran before this call failed, which may be one of other code") != std::string::npos);
}

TEST_CASE("Memory and work are on the device of the context, whichever is current") {
  int devices = 0;
  REQUIRE(cudaGetDeviceCount(&devices) == cudaSuccess);
  if (devices < 2) {
    MESSAGE("skipped: there is one GPU, this needs two");
    return;
  }
  const context gpu{backends::cuda{}, executors::cuda_stream::on(1)};
  CHECK(gpu.device() == 1);
#ifdef HMOE_CUDA_ON_CPU
  const std::size_t before = on_cpu::allocated(0);
#endif
  trainer training(gpu, make_layer(8));
  training.step();
  training.layer.check(gpu);
  (void)training.weights();
#ifdef HMOE_CUDA_ON_CPU
  CHECK(on_cpu::allocated(0) == before);
  CHECK(on_cpu::allocated(1) > training.layer.bytes());
#endif
  CHECK(backends::cuda_detail::current_device() == 0);
  const context first{backends::cuda{}, executors::cuda_stream{}};
  CHECK(support::error_of([&] { training.layer.forward(first, std::as_const(training.x), training.y); }) ==
        "hmoe: the layer lies on device 1, the context is of device 0");
  backends::device_workspace memory(1U << 20U);
  const context mixed{backends::cuda{}, gpu.executor(), memory};
  CHECK(support::error_of([&] { training.layer.forward(mixed, std::as_const(training.x), training.y); }) ==
        "hmoe: the workspace lies on device 0, the pass runs on device 1");
}

} // namespace
