// SPDX-License-Identifier: MIT
// Training in 16 bits, with clipped gradients and a selection bias that follows the load: weights that are uploaded
// stay, training goes on from a checkpoint bit for bit, steps run in CUDA graphs, and everything happens on the device
// of the context.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

using S = bfloat16;
using layer_type =
    moe_layer<expert_set<experts::mlp_bank<float, experts::relu>>,
              routing::router<routing::linear<float, routing::sigmoid>, routing::biased<float, routing::top_k<2>>>>;
constexpr std::size_t tokens = 9, d = 13;

/// Float values, which bfloat16 does not hold.
layer_type make_layer(std::uint64_t seed) {
  layer_type layer{expert_set{experts::mlp_bank<float, experts::relu>{d, {5, 9, 4}, experts::biases::all}},
                   {d, 3, {3, routing::top_k<2>{}}}};
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
  backends::device_matrix<double> load;

  trainer(const backends::cuda_context& ctx, const layer_type& host)
      : gpu(ctx), layer(backends::copy_to<S>(ctx, host)), gradients(layer.make_gradients(ctx)),
        optimizer(ctx, {.weight_decay = 0.1}, layer), tape(layer.make_tape(tokens)),
        x(to_device<S>(ctx, random_tokens<S>(tokens, d, 5))), rate(ctx.executor(), 0.01), load(layer.make_load(ctx)) {
    y.resize_for_overwrite(ctx.executor(), tokens, d);
    dx.resize_for_overwrite(ctx.executor(), tokens, d);
  }
  void step() {
    gradients.set_zero(gpu.executor());
    layer.forward(gpu, std::as_const(x), y, tape);
    layer.backward(gpu, tape, std::as_const(y), dx, gradients);
    layer.clip_gradient_norm(gpu, gradients, 0.5);
    optimizer.step(gpu, layer, gradients, rate);
    load.set_zero(gpu.executor());
    layer.add_load(gpu, tape, load);
    layer.update_bias_by_sign(gpu, std::as_const(load), 1e-3);
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

TEST_CASE("Gradients are clipped by their norm") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer training(gpu, make_layer(9));
  layer_type host = make_layer(0);
  auto drawn = host.make_gradients();
  std::vector<parameter<float>> list;
  host.append_parameters(drawn, list);
  support::random_source random(3);
  for (const auto& tensor : list)
    if (tensor.name != "router.selection_bias") // which has no gradient
      for (float& g : tensor.gradient)
        g = static_cast<float>(random.real());
  const double norm = training::gradient_norm(list);
  const auto read = [&] {
    drawn.set_zero();
    training.layer.add_gradients(gpu, training.gradients, drawn);
    return training::gradient_norm(list);
  };
  training.layer.set_gradients(gpu, training.gradients, drawn);
  training.layer.clip_gradient_norm(gpu, training.gradients, 2 * norm);
  CHECK(training.gradients.read_norm(gpu) == doctest::Approx(norm).epsilon(1e-12));
  CHECK(read() == norm); // below the limit: not a bit changes
  training.layer.clip_gradient_norm(gpu, training.gradients, 0.25);
  CHECK(training.gradients.read_norm(gpu) == doctest::Approx(norm).epsilon(1e-12));
  CHECK(read() == doctest::Approx(0.25).epsilon(1e-6));
  // Over two layers: the sum of their squares.
  trainer other(gpu, make_layer(9));
  other.layer.set_gradients(gpu, other.gradients, drawn);
  backends::device_value<double> squares(gpu.executor());
  training.layer.add_squared_norm(gpu, training.gradients, squares);
  other.layer.add_squared_norm(gpu, other.gradients, squares);
  CHECK(squares.read(gpu.executor()) == doctest::Approx(2 * 0.25 * 0.25).epsilon(1e-6));
  training.layer.check(gpu);

  list.front().gradient.front() = std::numeric_limits<float>::infinity();
  training.layer.set_gradients(gpu, training.gradients, drawn);
  training.layer.clip_gradient_norm(gpu, training.gradients, 0.25);
  CHECK(support::error_of([&] { training.layer.check(gpu); }).find("was not finite") != std::string::npos);
  CHECK(read() == 0);
  CHECK_THROWS_AS(training.layer.clip_gradient_norm(gpu, training.gradients, 0), error);
}

TEST_CASE("The selection bias follows the load as on the host") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer training(gpu, make_layer(10));
  layer_type host = training.weights();
  training.step();
  const std::vector<index_t> counts = training.tape.read_tokens_per_expert(gpu.executor());
  std::vector<double> load(3);
  routing::load_in_tokens(vector_view<const index_t>(counts), vector_view<double>(load));
  CHECK(load[0] + load[1] + load[2] == 2 * tokens);
  routing::update_bias_by_sign<float>(host.router().selection_policy().bias(), vector_view<const double>(load), 1e-3);
  const layer_type moved = training.weights();
  CHECK(std::ranges::equal(host.router().selection_policy().bias(), moved.router().selection_policy().bias()));
  CHECK(support::error_of([&] { training.layer.update_bias_by_sign(gpu, std::as_const(training.load), 1e-3, 4); }) ==
        "hmoe: the bias of 4 of 3 experts should move");
}

TEST_CASE("Counts are of a tape that this layer has filled") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer training(gpu, make_layer(1));
  const auto fresh = training.layer.make_tape(tokens);
  CHECK(support::error_of([&] { training.layer.add_load(gpu, fresh, training.load); }) ==
        "hmoe: counts need a tape that a forward pass of this layer has filled");
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

/// The weights of a bank, which counts the rows that are asked for at a time.
struct counted_source : experts::weights_in_memory<1> {
  explicit counted_source(const experts::ffn_weights<float, 1>& from) : experts::weights_in_memory<1>(from) {}
  void read(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const {
    most = std::max(most, to.rows());
    weights_in_memory::read(e, m, first, to);
  }
  mutable std::size_t most = 0;
};

TEST_CASE("Weights go to the device from a source, some rows at a time") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  constexpr std::size_t wide = 200;
  layer_type host{expert_set{experts::mlp_bank<float, experts::relu>{d, {wide, 70, 4}, experts::biases::all}},
                  {d, 3, {3, routing::top_k<2>{}}}};
  randomize<float>(host, 11);
  const counted_source source(host.experts().bank<0>().weights());
  const auto layer = backends::load_to<layer_type, S>(gpu, host.router(), source);
  CHECK(source.most == 64);
  const auto copied = backends::copy_to<S>(gpu, host);
  const auto x = to_device<S>(gpu, random_tokens<S>(tokens, d, 3));
  backends::device_matrix<S> y(tokens, d), expected(tokens, d);
  layer.forward(gpu, x, y);
  copied.forward(gpu, x, expected);
  CHECK(relative_error(to_host(gpu, y), to_host(gpu, expected)) == 0);
  layer_type back = make_layer(0);
  CHECK(support::error_of([&] {
          (void)backends::load_to<layer_type, S>(
              gpu, back.router(),
              counted_source(experts::mlp_bank<float, experts::relu>{d, {2, 3}, experts::biases::all}.weights()));
        }) == "hmoe: the router is for 3 experts, the banks have 2");
}

TEST_CASE("An error in an upload changes nothing") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto layer = backends::copy_to<S>(gpu, make_layer(12));
  layer.keep_masters(gpu);
  layer_type before = make_layer(0), broken = make_layer(13), after = make_layer(0);
  layer.download(gpu, before);
  broken.experts().bank<0>().weights().output(2)(0, 0) = std::numeric_limits<float>::quiet_NaN();
  CHECK(support::error_of([&] { layer.upload(gpu, broken); }).find("a weight of the second projection is nan") !=
        std::string::npos);
  layer.download(gpu, after);
  CHECK(same(after, before));
}

TEST_CASE("Layers work in memory that others own") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  trainer usual(gpu, make_layer(14));
  auto layer = backends::copy_to<S>(gpu, make_layer(15));
  // Somebody's matrices, workspace and tape.
  const auto& layout = layer.weight_layout<0>();
  backends::device_buffer<S> in(layout.in_size()), out(layout.out_size());
  in.set_zero(gpu.executor());
  out.set_zero(gpu.executor());
  layer.use_weights<0>(in.data(), out.data());
  layer.upload(gpu, make_layer(14)); // writes them
  const std::size_t bytes = layer.tape_bytes(tokens), scratch = layer.workspace_bytes(tokens);
  backends::device_buffer<std::byte> memory(bytes + scratch);
  backends::device_workspace workspace(memory.data() + bytes, scratch, gpu.device());
  const context theirs{backends::cuda{}, executors::cuda_stream(gpu.stream(), gpu.device()), workspace};
  auto tape = layer.make_tape_in(memory.data(), bytes, tokens);
  CHECK(tape.bytes() == bytes);
  backends::device_matrix<S> y(tokens, d), dx(tokens, d);
  auto gradients = layer.make_gradients(theirs);
  backends::cuda_adamw optimizer(theirs, {.weight_decay = 0.1}, layer);
#ifdef HMOE_CUDA_ON_CPU
  const std::size_t before = on_cpu::now().allocations;
#endif
  layer.forward(theirs, std::as_const(usual.x), y, tape);
  layer.backward(theirs, tape, std::as_const(y), dx, gradients);
  layer.clip_gradient_norm(theirs, gradients, 0.5);
  optimizer.step(theirs, layer, gradients, 0.01);
#ifdef HMOE_CUDA_ON_CPU
  CHECK(on_cpu::now().allocations == before);
#endif
  usual.step();
  CHECK(relative_error(to_host(gpu, y), to_host(gpu, usual.y)) == 0);
  CHECK(relative_error(to_host(gpu, dx), to_host(gpu, usual.dx)) == 0);
  layer_type trained = make_layer(0);
  layer.download(gpu, trained);
  auto trained_bias = trained.router().selection_policy().bias();
  const layer_type moved = usual.weights();
  std::ranges::copy(moved.router().selection_policy().bias(), trained_bias.begin()); // only `usual` has moved its bias
  CHECK(same(trained, moved));
  CHECK(support::error_of([&] {
          (void)layer.make_tape_in(memory.data(), bytes - 1, tokens);
        }).find("given are " + std::to_string(bytes - 1)) != std::string::npos);
  CHECK(support::error_of([&] { backends::device_workspace(memory.data() + 1, 8, 0); }) ==
        "hmoe: the workspace must begin at a multiple of 256 bytes");
  CHECK(support::error_of([&] { layer.use_weights<0>(in.data(), out.data()); }).find("keeps masters") !=
        std::string::npos);
}

#ifdef HMOE_CUDA_ON_CPU
TEST_CASE("Memory is what the documentation says") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  constexpr std::size_t size = 24, batch = 512, k = 2, experts = 3, widest = 256;
  layer_type host{expert_set{experts::mlp_bank<float, experts::relu>{size, {widest, 96, 64}, experts::biases::none}},
                  {size, experts, {experts, routing::top_k<k>{}}}};
  randomize<float>(host, 16);
  constexpr double weights = 2 * size * (widest + 96 + 64), parameters = weights + experts * (size + 1);
  // Nothing more than a few kilobytes beyond a figure: tables, and arrays that begin at multiples of 256 bytes.
  double before = static_cast<double>(on_cpu::allocated(0));
  const auto grown = [&] {
    const double now = static_cast<double>(on_cpu::allocated(0));
    return now - std::exchange(before, now);
  };
  const auto about = [](double bytes, double expected) { return bytes >= expected && bytes <= expected + 6000; };
  auto layer = backends::copy_to<S>(gpu, host);
  const double of_layer = grown();
  CHECK(about(of_layer, 2 * weights + 4 * experts * (size + 1)));
  CHECK(about(of_layer, static_cast<double>(layer.bytes())));
  const auto gradients = layer.make_gradients(gpu);
  CHECK(about(grown(), 4 * parameters));
  const backends::cuda_sgd sgd(gpu, {}, layer);
  CHECK(about(grown(), 4 * parameters + 4 * weights)); // and the masters
  const backends::cuda_adamw adamw(gpu, {}, layer);
  CHECK(about(grown(), 8 * parameters));
  const auto tape = layer.make_tape(batch);
  const double entries = k * batch, indices = 4 * (5 * entries + batch);
  // Of hidden layers the values before the activation; no outputs.
  const double of_tape = grown(), expected = entries * 2 * widest + batch * (4 * 4 * experts + 2 * size) + indices;
  CHECK(about(of_tape, expected));
  CHECK(of_tape == static_cast<double>(tape.bytes()));
  backends::device_matrix<S> x(batch, size), y(batch, size);
  x.set_zero(gpu.executor());
  (void)grown();
  layer.forward(gpu, std::as_const(x), y);                          // the workspace of inference
  constexpr double scratch = batch * (4 * k + 4 + 1 + 4 * experts); // of the router: choices, counts, marks, sums
  CHECK(about(grown(), entries * (4 * size + 2 * widest) + batch * 2 * 4 * experts + indices + scratch));
}
#endif

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
