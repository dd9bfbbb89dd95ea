// SPDX-License-Identifier: MIT
// Layers on a GPU: shapes × data types × subjects × tokens × routing, named
//   cuda/SHAPE/DTYPE/SUBJECT/tokens:T/ROUTING
// Before it is timed, each subject's result is compared with hmoe's on the host. Time is the device's, between events
// (for cuBLAS the host's waiting for the plan is inside); the L2 cache is filled with something else before each pass.
// With --shape=NAME only that one is there.
// Counters:
//   TFLOP/s        of the router and the activated experts, without padding; three times that for a training step
//   GB/s           of the weights that some token of the batch uses
//   efficiency     the larger time that the two limits allow ÷ the time it took
//   dense_tflops, copy_gbs   the limits, measured in this run: a product of 8192 × 8192 matrices by cuBLAS, and copying
#include "device_runner.hpp"
#include "support/model.hpp"
#include "support/program.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

namespace {

using namespace benchmarks;
using hmoe::backends::cuda_context;
using hmoe::backends::cuda_detail::require_cuda;

struct cell {
  layer_shape shape;
  device_type_facts type;
  device_subject subject;
  std::size_t tokens;
  routing spread;

  [[nodiscard]] std::string name() const {
    return "cuda/" + shape.name + "/" + std::string(type.name) + "/" +
           std::string(device_subject_names[static_cast<std::size_t>(subject)]) + "/tokens:" + std::to_string(tokens) +
           "/" + std::string(name_of(spread));
  }
};

/// Two events on a stream.
class stopwatch {
public:
  explicit stopwatch(const cuda_context& gpu) : gpu_(gpu) {
    require_cuda(cudaEventCreate(&begin_), "creating an event");
    require_cuda(cudaEventCreate(&end_), "creating an event");
  }
  stopwatch(const stopwatch&) = delete;
  stopwatch& operator=(const stopwatch&) = delete;
  ~stopwatch() {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(end_);
  }
  template <class Work> double seconds_of(const Work& work) const {
    require_cuda(cudaEventRecord(begin_, gpu_.stream()), "recording an event");
    work();
    require_cuda(cudaEventRecord(end_, gpu_.stream()), "recording an event");
    gpu_.synchronize();
    float milliseconds = 0;
    require_cuda(cudaEventElapsedTime(&milliseconds, begin_, end_), "reading events");
    return static_cast<double>(milliseconds) * 1e-3;
  }

private:
  const cuda_context& gpu_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// The device, its limits, and the layer at hand.
class workshop {
public:
  static constexpr std::size_t flush_bytes = std::size_t{256} << 20U; ///< several times any L2 cache

  workshop() : exact_(), fast_({.math = hmoe::backends::float_math::tf32}, exact_.executor()), flush_(flush_bytes) {}

  [[nodiscard]] const cuda_context& gpu(device_type type) const { return type == device_type::tf32 ? fast_ : exact_; }
  model& take(const layer_shape& shape) {
    if (!model_ || model_->shape().name != shape.name) {
      runner_.reset();
      model_.reset();
      model_.emplace(shape, model::copies::one, 3.0); // the host's layer, and what is being copied
    }
    return *model_;
  }
  /// One at a time: the memory of a device is smaller than the host's.
  device_runner* take(const cell& at) {
    const std::tuple key{at.shape.name, at.type.type, at.subject};
    if (key != key_ || !runner_) {
      runner_.reset();
      runner_ = make_device_runner(gpu(at.type.type), model_->layer(0), at.type.type, at.subject);
      key_ = key;
    }
    return runner_.get();
  }
  void flush() { flush_.set_zero(exact_.executor()); }
  double peak(device_type type) {
    auto& known = peaks_[type];
    if (known == 0)
      known = dense_flops(gpu(type), type);
    return known;
  }
  double bandwidth() {
    if (bandwidth_ == 0) {
      hmoe::backends::device_buffer<std::byte> other(flush_bytes);
      const stopwatch watch(exact_);
      for (int round = 0; round < 5; ++round) {
        const double time = watch.seconds_of([&] {
          require_cuda(
              cudaMemcpyAsync(other.data(), flush_.data(), flush_bytes, cudaMemcpyDeviceToDevice, exact_.stream()),
              "copying");
        });
        bandwidth_ = std::max(bandwidth_, 2.0 * static_cast<double>(flush_bytes) / time);
      }
    }
    return bandwidth_;
  }

private:
  cuda_context exact_, fast_;
  hmoe::backends::device_buffer<std::byte> flush_;
  std::optional<model> model_;
  std::unique_ptr<device_runner> runner_;
  std::tuple<std::string, device_type, device_subject> key_;
  std::map<device_type, double> peaks_;
  double bandwidth_ = 0;
};

/// ‖y - expected‖ / ‖expected‖
double error_of(const hmoe::matrix<float>& y, const hmoe::matrix<float>& expected) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double right = static_cast<double>(expected.data()[i]);
    difference += std::pow(static_cast<double>(y.data()[i]) - right, 2);
    size += right * right;
  }
  return std::sqrt(difference / size);
}

void measure(benchmark::State& state, workshop& shop, const cell& at) try {
  model& weights = shop.take(at.shape);
  const batch& input = weights.batches(at.tokens, at.spread)[0];
  device_runner* const work = shop.take(at);
  hmoe::require(work != nullptr, "not available for this layer");
  const cuda_context& gpu = shop.gpu(at.type.type);
  work->set_input(input.x.view());
  work->run();
  const double error = error_of(work->result(), input.expected);
  hmoe::require(error <= at.type.tolerance, "its result differs from hmoe's by ", error, ", allowed is ",
                at.type.tolerance);

  const stopwatch watch(gpu);
  double time = 0;
  for (auto _ : state) {
    shop.flush();
    const double once = watch.seconds_of([&] { work->run(); });
    state.SetIterationTime(once);
    time += once;
  }
  const double passes = static_cast<double>(state.iterations()) * (at.subject == device_subject::training_step ? 3 : 1);
  const double flops = input.flops * passes, bytes = input.weights * at.type.bytes_per_weight * passes;
  const double peak = shop.peak(at.type.type), bandwidth = shop.bandwidth();
  state.counters["TFLOP/s"] = flops / time * 1e-12;
  state.counters["GB/s"] = bytes / time * 1e-9;
  state.counters["efficiency"] = std::max(flops / peak, bytes / bandwidth) / time;
  state.counters["dense_tflops"] = peak * 1e-12;
  state.counters["copy_gbs"] = bandwidth * 1e-9;
} catch (const std::exception& reason) {
  state.SkipWithError(reason.what());
}

/// Beside hmoe in every type, cuBLAS and training in those that they know.
bool measured(const layer_shape& shape, const device_type_facts& type, device_subject subject) {
  const bool scalar = type.type == device_type::f32 || type.type == device_type::tf32 || type.type == device_type::bf16;
  return scalar || (subject == device_subject::hmoe && !shape.mixed() && shape.top_p == 0);
}

} // namespace

int main(int argc, char** argv) try {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::cout << "there is no GPU here\n";
    return 77;
  }
  workshop shop;
  for (const layer_shape& shape : chosen_shapes(argc, argv))
    for (const std::size_t tokens : {1U, 4U, 16U, 64U, 256U, 1024U, 4096U, 32768U})
      for (const auto& type : device_types)
        for (const auto subject : {device_subject::hmoe, device_subject::cublas_per_expert,
                                   device_subject::cublas_grouped, device_subject::training_step})
          for (const routing spread : all_routings)
            if (measured(shape, type, subject)) {
              const cell at{shape, type, subject, tokens, spread};
              benchmark::RegisterBenchmark(at.name().c_str(),
                                           [&shop, at](benchmark::State& state) { measure(state, shop, at); })
                  ->UseManualTime()
                  ->Unit(benchmark::kMicrosecond);
            }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  cudaDeviceProp device{};
  require_cuda(cudaGetDeviceProperties(&device, 0), "asking the device");
  benchmark::AddCustomContext("device", device.name);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
} catch (const std::exception& reason) {
  std::cerr << "cuda: " << reason.what() << "\n";
  return 1;
}
