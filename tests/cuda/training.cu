// SPDX-License-Identifier: MIT
// Optimisers on the device, and training steps that never leave it, beside the host's.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

using layer_type = moe_layer<expert_set<experts::mlp_bank<float, experts::relu>, experts::constant_bank<float>>,
                             routing::router<routing::linear<float, routing::softmax, true>, routing::top_k<2>>>;

layer_type make_layer() {
  return {expert_set{experts::mlp_bank<float, experts::relu>{8, {5, 9, 4}, experts::biases::all},
                     experts::constant_bank<float>{8}},
          {8, 4}};
}

template <class HostOptimizer, class DeviceOptimizer, class Options>
void check_training(const Options& options, double rate) {
  constexpr std::size_t tokens = 21;
  layer_type host = make_layer();
  randomize<float>(host, 1);
  const objective aux{losses::load_balance{0.1}};
  const matrix<float> x = random_tokens<float>(tokens, 8, 2);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto layer = backends::copy_to(gpu, host);
  const auto device_x = to_device<float>(gpu, x);

  matrix<float> y(tokens, 8), dx(tokens, 8);
  auto tape = host.make_tape(tokens);
  auto gradients = host.make_gradients();
  std::vector<parameter<float>> list;
  host.append_parameters(gradients, list);
  HostOptimizer host_optimizer(options, list);
  backends::device_matrix<float> device_y(tokens, 8), device_dx(tokens, 8);
  auto device_tape = layer.make_tape(tokens);
  auto device_gradients = layer.make_gradients(gpu);
  DeviceOptimizer device_optimizer(gpu, options, layer);
  for (int step = 0; step < 4; ++step) {
    gradients.set_zero();
    host.forward(cpu, x, y, tape);
    (void)aux.evaluate(host, tape);
    host.backward(cpu, tape, y, dx, gradients);
    host_optimizer.step(list, rate);

    device_gradients.set_zero(gpu.executor());
    layer.forward(gpu, device_x, device_y, device_tape);
    layer.evaluate(gpu, aux, device_tape);
    layer.backward(gpu, device_tape, std::as_const(device_y), device_dx, device_gradients);
    device_optimizer.step(gpu, layer, device_gradients, rate);
  }
  layer.check(gpu);
  layer_type trained = make_layer(), initial = make_layer();
  randomize<float>(initial, 1);
  layer.download(gpu, trained);
  const auto [error, name] = largest_error(trained, host);
  CAPTURE(name);
  CHECK(error < 1e-3);
  CHECK(largest_error(initial, host).first > 1e-2); // it has moved
}

TEST_CASE("AdamW on the device") {
  check_training<training::adamw<float>, backends::cuda_adamw>(training::adamw_options{.weight_decay = 0.1}, 0.01);
}
TEST_CASE("SGD on the device") {
  check_training<training::sgd<float>, backends::cuda_sgd>(training::sgd_options{.momentum = 0.9, .weight_decay = 0.1},
                                                           0.02);
}

TEST_CASE("Weights go to the device and come back") {
  layer_type host = make_layer(), other = make_layer(), back = make_layer();
  randomize<float>(host, 3);
  randomize<float>(other, 4);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto layer = backends::copy_to(gpu, host);
  layer.download(gpu, back);
  CHECK(largest_error(back, host).first == 0);
  layer.upload(gpu, other);
  layer.download(gpu, back);
  CHECK(largest_error(back, other).first == 0);
  CHECK(layer.bytes() >= 4 * (3 * 2 * 8 * 6 + 24 + 32));
}

} // namespace
