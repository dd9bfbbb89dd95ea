// SPDX-License-Identifier: MIT
// Inference and training on the GPU: the layer is made on the host, copied to the device, and stays there.
#include <hmoe/backends/cuda.hpp>

#include "model.hpp"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <utility>

using namespace hmoe;

namespace {

/// ‖a − b‖ / ‖b‖
double difference(const matrix<bfloat16>& a, const matrix<float>& b) {
  double sum = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const auto right = static_cast<double>(b.data()[i]);
    sum += std::pow(static_cast<double>(static_cast<float>(a.data()[i])) - right, 2);
    size += right * right;
  }
  return std::sqrt(sum / size);
}

int run() {
  constexpr std::size_t tokens = 256, d = 768;
  layer_type layer{expert_set{experts::glu_bank<float, experts::silu>{
                       d, widths::arithmetic{.count = 8, .total = 12288, .first = 9, .last = 23}}},
                   routing::top_p_router<float>{d, 8, /*p=*/0.6}};
  layer.initialize(seed{42});
  matrix<float> x(tokens, d), y(tokens, d);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{1}, 0);
  layer.forward(context{backends::reference{}, executors::openmp{}}, x, y);
  matrix<bfloat16> narrow(tokens, d);
  for (std::size_t i = 0; i < x.size(); ++i)
    narrow.data()[i] = bfloat16(x.data()[i]);

  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  auto on_gpu = backends::copy_to<bfloat16>(gpu, layer);
  const backends::device_matrix<bfloat16> device_x(gpu.executor(), narrow.view());
  backends::device_matrix<bfloat16> device_y(tokens, d), device_dx(tokens, d);

  on_gpu.forward(gpu, device_x, device_y); // inference
  device_y.read(gpu.executor(), narrow.view());
  on_gpu.check(gpu); // waits; throws if a logit was not finite
  std::cout << "bfloat16 on the device differs from float on the host by " << difference(narrow, y) << "\n";

  const auto quantized = backends::copy_to<bfloat16, q8_block>(gpu, layer); // half the memory
  quantized.forward(gpu, device_x, device_y);
  device_y.read(gpu.executor(), narrow.view());
  quantized.check(gpu);
  std::cout << "with weights of 8.5 bits, " << quantized.bytes() << " instead of " << on_gpu.bytes() << " bytes, by "
            << difference(narrow, y) << "\n";

  auto tape = on_gpu.make_tape(tokens); // training: makes y = 0 the aim
  auto gradients = on_gpu.make_gradients(gpu);
  backends::cuda_adamw optimizer(gpu, {}, on_gpu);
  const objective_type aux{losses::parameter_penalty{0.1}, losses::router_entropy{0.03}};
  for (int step = 0; step < 3; ++step) {
    gradients.set_zero(gpu.executor());
    on_gpu.forward(gpu, device_x, device_y, tape);
    const auto penalties = on_gpu.evaluate(gpu, aux, tape);
    on_gpu.backward(gpu, tape, /*dy=*/std::as_const(device_y), device_dx, gradients);
    optimizer.step(gpu, on_gpu, gradients, 1e-3);
    std::cout << "step " << step << ": penalties " << penalties.read(gpu).total() << "\n"; // the only wait
  }
  on_gpu.download(gpu, layer); // for a checkpoint
  on_gpu.check(gpu);
  return 0;
}

} // namespace

int main() try {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::cout << "there is no GPU here\n";
    return 77;
  }
  return run();
} catch (const error& wrong) {
  std::cerr << wrong.what() << "\n";
  return 1;
}
