// SPDX-License-Identifier: MIT
// Forward pass and training step of a layer: shapes × backends × dispatch strategies × numbers of tokens, one thread.
// Counters: GFLOP/s of the activated experts, and their share of the multiply-add peak measured in the same run.
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

#include "peak.hpp"
#include "shapes.hpp"

#include <benchmark/benchmark.h>

#include <optional>
#include <string>
#include <utility>

namespace {

using namespace hmoe;

constexpr std::size_t batches = 4; // different inputs in turn: a constant one would flatter the branch predictor

double peak() {
  static const double value = benchmarks::measured_peak();
  return value;
}

template <class Backend, class Dispatch>
void run(benchmark::State& state, const benchmarks::layer_shape& shape, std::size_t tokens, bool training) {
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{shape.d_model, shape.widths}},
                  routing::top_k_router<float>{shape.d_model, shape.widths.size(), shape.top_k}, Dispatch{}};
  layer.initialize(seed{1}, {.router_stddev = 1.0});
  const context cpu{Backend{}, executors::serial{}};
  matrix<float> x(batches * tokens, shape.d_model), y(tokens, shape.d_model), dx(tokens, shape.d_model);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);

  auto tape = layer.make_tape(training ? tokens : 1);
  std::optional<decltype(layer.make_gradients())> gradients;
  if (training)
    gradients.emplace(layer.make_gradients());
  const auto cost = layer.cost();
  double flops = 0;
  std::size_t round = 0;
  for (auto _ : state) {
    const auto batch = std::as_const(x).view().row_block(round++ % batches * tokens, tokens);
    if (training) {
      layer.forward(cpu, batch, y, tape);
      layer.backward(cpu, tape, y, dx, *gradients);
      flops += 3 * cost.activated(tape.assignment()).flops * static_cast<double>(tokens);
    } else {
      layer.forward(cpu, batch, y);
    }
    benchmark::DoNotOptimize(y.data());
  }
  if (!training) { // equal shares are close enough where the tape does not tell
    double all = cost.router_flops_per_token;
    for (const auto& expert : cost.experts)
      all += expert.flops_per_token * static_cast<double>(shape.top_k) / static_cast<double>(shape.widths.size());
    flops = all * static_cast<double>(tokens) * static_cast<double>(state.iterations());
  }
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["peak_fraction"] = benchmark::Counter(flops / peak(), benchmark::Counter::kIsRate);
}

template <class Backend, class Dispatch> void add(const std::string& backend, const std::string& dispatch) {
  for (const auto& shape : benchmarks::shapes())
    for (const bool training : {false, true})
      for (const std::size_t tokens : {1U, 16U, 64U, 256U, 1024U}) {
        const std::string name = shape.name + "/" + backend + "/" + dispatch + (training ? "/training/" : "/forward/") +
                                 std::to_string(tokens);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
          run<Backend, Dispatch>(state, shape, tokens, training);
        })->Unit(benchmark::kMillisecond);
      }
}

} // namespace

int main(int argc, char** argv) {
  add<backends::eigen, dispatch::sorted<>>("eigen", "sorted");
  add<backends::eigen, dispatch::looped>("eigen", "looped");
  add<backends::simd<>, dispatch::sorted<>>("simd", "sorted");
  add<backends::simd<>, dispatch::looped>("simd", "looped");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::AddCustomContext("measured_peak_gflops", std::to_string(peak() / 1e9));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
