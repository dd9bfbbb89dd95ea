// SPDX-License-Identifier: MIT
// The layer in training: forward with a tape, backward, and a whole step (gradients to zero, forward, auxiliary losses,
// backward, AdamW), named
//   training/SHAPE/f32/SUBJECT/tokens:T/threads:N/forward|backward|step
// Tokens spread evenly; --shape=NAME as in layer.cpp. Counters as in layer.cpp; backward counts twice the FLOPs of
// forward, a step three times.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

#include "support/machine.hpp"
#include "support/model.hpp"
#include "support/program.hpp"

#include <Eigen/Core>
#include <benchmark/benchmark.h>
#include <omp.h>

#include <array>
#include <exception>
#include <iostream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace {

using namespace benchmarks;

enum class phase { forward, backward, step };
constexpr std::array<std::string_view, 3> phase_names{"forward", "backward", "step"};

/// One shape at a time, and only one copy: a step passes through weights, gradients and moments, far more than caches
/// hold.
class workshop {
public:
  model& take(const layer_shape& shape) {
    if (!model_ || model_->shape().name != shape.name) {
      model_.reset();
      model_.emplace(shape, model::copies::one, 4.5); // gradients and two moments, activations
    }
    return *model_;
  }

private:
  std::optional<model> model_;
};

template <class Backend, class Layer>
void time_phase(benchmark::State& state, Layer& layer, const std::vector<batch>& inputs, std::size_t threads,
                phase what) {
  Eigen::setNbThreads(1); // the executor's threads are the only ones
  const hmoe::context cpu{Backend{}, hmoe::executors::openmp{threads}};
  const std::size_t tokens = inputs[0].x.rows();
  hmoe::matrix<float> y(tokens, layer.d_model()), dx(tokens, layer.d_model());
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  std::vector<hmoe::parameter<float>> parameters;
  layer.append_parameters(gradients, parameters);
  std::optional<hmoe::training::adamw<float>> optimizer;
  if (what == phase::step)
    optimizer.emplace(hmoe::training::adamw_options{}, parameters);
  const hmoe::objective losses{hmoe::losses::parameter_penalty{0.1}, hmoe::losses::router_entropy{0.03}};

  const auto forward = [&](const batch& input) { layer.forward(cpu, input.x.view(), y.view(), tape); };
  const auto backward = [&] { layer.backward(cpu, tape, /*dy=*/std::as_const(y).view(), dx.view(), gradients); };
  forward(inputs[0]); // also what the backward phase goes back from
  backward();
  const limits limit = limits_now(multiplier::f32, threads);

  double flops = 0;
  std::size_t round = 0;
  const auto start = benchmarks::clock::now();
  for (auto _ : state) {
    const batch& input = inputs[what == phase::backward ? 0 : round++ % inputs.size()];
    if (what == phase::step)
      gradients.set_zero();
    if (what != phase::backward)
      forward(input);
    if (what == phase::step)
      benchmark::DoNotOptimize(losses.evaluate(layer, tape).total());
    if (what != phase::forward)
      backward();
    if (what == phase::step)
      optimizer->step(cpu, parameters, 1e-5);
    benchmark::ClobberMemory();
    flops += input.flops * (what == phase::forward ? 1 : what == phase::backward ? 2 : 3);
  }
  const double time = seconds(benchmarks::clock::now() - start).count();
  state.counters["GFLOP/s"] = flops / time * 1e-9;
  state.counters["peak_fraction"] = flops / time / limit.peak;
  state.counters["peak_gflops"] = limit.peak * 1e-9;
  state.counters["dram_gbs"] = limit.dram * 1e-9;
}

template <class Backend> void add(workshop& shop, const std::vector<layer_shape>& chosen, const std::string& backend) {
  const auto cores = static_cast<std::size_t>(omp_get_max_threads());
  for (const layer_shape& shape : chosen)
    for (const std::size_t tokens : {64U, 256U, 1024U, 4096U})
      for (const std::size_t threads : std::set<std::size_t>{1, cores})
        for (const phase what : {phase::forward, phase::backward, phase::step}) {
          const std::string name = "training/" + shape.name + "/f32/" + backend + "/tokens:" + std::to_string(tokens) +
                                   "/threads:" + std::to_string(threads) + "/" +
                                   std::string(phase_names[static_cast<std::size_t>(what)]);
          benchmark::RegisterBenchmark(name.c_str(), [=, &shop](benchmark::State& state) {
            try {
              model& weights = shop.take(shape);
              const auto& inputs = weights.batches(tokens, routing::uniform);
              std::visit([&](auto& layer) { time_phase<Backend>(state, layer, inputs, threads, what); },
                         weights.layer(0));
            } catch (const std::exception& reason) {
              state.SkipWithError(reason.what());
            }
          })->Unit(benchmark::kMillisecond);
        }
}

} // namespace

int main(int argc, char** argv) try {
  workshop shop;
  const auto chosen = chosen_shapes(argc, argv);
  add<hmoe::backends::simd<>>(shop, chosen, "simd");
  add<hmoe::backends::eigen>(shop, chosen, "eigen");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::AddCustomContext("compiler", HMOE_BENCHMARKS_COMPILER);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
} catch (const std::exception& reason) {
  std::cerr << "training: " << reason.what() << "\n";
  return 1;
}
