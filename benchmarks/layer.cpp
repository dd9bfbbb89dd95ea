// SPDX-License-Identifier: MIT
// The forward pass of a layer: shapes × subjects (hmoe's backends and competitors) × tokens × threads × routing, named
//   layer/SHAPE/DTYPE/SUBJECT/tokens:T/threads:N/ROUTING
// Before it is timed, each subject's result is compared with hmoe's. Weights are cold: copies of the layer take turns.
// With --shape=NAME only that one is there, with --warm one copy of its weights.
// Counters:
//   GFLOP/s        of the router and the activated experts, without padding
//   GB/s           of the weights that some token of the batch uses
//   peak_fraction  GFLOP/s ÷ peak of the data type      dram_fraction  GB/s ÷ memory bandwidth
//   efficiency     the larger time that these two limits allow ÷ the time it took
//   router_share   router and plan alone ÷ the whole; 0 for competitors, who get both ready-made
//   peak_gflops, dram_gbs   the limits, measured for the same number of threads within the last two seconds
#include "support/machine.hpp"
#include "support/model.hpp"
#include "support/program.hpp"
#include "support/subject.hpp"

#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace {

using namespace benchmarks;

struct cell {
  layer_shape shape;
  subject what;
  std::size_t tokens, threads;
  routing spread;

  [[nodiscard]] std::string name() const {
    return "layer/" + shape.name + "/" + what.type.name + "/" + what.name + "/tokens:" + std::to_string(tokens) +
           "/threads:" + std::to_string(threads) + "/" + std::string(name_of(spread));
  }
};

/// The shape at hand and who runs it: one shape at a time, since the largest fill the memory.
class workshop {
public:
  explicit workshop(model::copies copies) : copies_(copies) {}

  model& take(const layer_shape& shape) {
    if (!model_ || model_->shape().name != shape.name) {
      runners_.clear();
      model_.reset();
      model_.emplace(shape, copies_, 2.2); // a competitor packs them once more; inputs and scratch
    }
    return *model_;
  }
  runner& take(const subject& what) {
    const std::string name = what.name + "/" + what.type.name;
    if (const auto found = runners_.find(name); found != runners_.end())
      return *found->second;
    // Copies of packed weights take as many bytes as those of the model: the others make room before memory is short.
    const std::size_t bytes = model_->copy_count() * model_->shape().parameters() * sizeof(float);
    if (available_memory() < 4 * bytes)
      runners_.clear();
    return *(runners_[name] = what.make(*model_));
  }
  /// The cells whose result has been compared with hmoe's, by name.
  std::set<std::string> compared;

private:
  model::copies copies_;
  std::optional<model> model_;
  std::map<std::string, std::unique_ptr<runner>> runners_;
};

/// ‖y - expected‖ / ‖expected‖
double error_of(hmoe::matrix_view<const float> y, hmoe::matrix_view<const float> expected) {
  double difference = 0, size = 0;
  for (std::size_t r = 0; r < y.rows(); ++r)
    for (std::size_t c = 0; c < y.cols(); ++c) {
      const double right = static_cast<double>(expected(r, c)), delta = static_cast<double>(y(r, c)) - right;
      difference += delta * delta;
      size += right * right;
    }
  return std::sqrt(difference / size);
}

void measure(benchmark::State& state, workshop& shop, const cell& at) try {
  model& weights = shop.take(at.shape);
  const auto& inputs = weights.batches(at.tokens, at.spread);
  runner& work = shop.take(at.what);
  work.set_threads(at.threads);

  hmoe::matrix<float> y(at.tokens, at.shape.d_model);
  if (!shop.compared.contains(at.name())) {
    work.run(0, inputs[0], y);
    const double error = error_of(y, inputs[0].expected);
    hmoe::require(error <= at.what.type.tolerance, "its result differs from hmoe's by ", error, ", allowed is ",
                  at.what.type.tolerance);
    shop.compared.insert(at.name());
  }
  const limits limit = limits_now(at.what.type.kind, at.threads);

  double flops = 0, bytes = 0;
  std::size_t round = 0;
  const auto start = benchmarks::clock::now();
  for (auto _ : state) {
    const batch& input = inputs[round % inputs.size()];
    work.run(round % work.copies(), input, y);
    benchmark::ClobberMemory();
    flops += input.flops;
    bytes += input.weights * at.what.type.bytes_per_weight;
    ++round;
  }
  const double time = seconds(benchmarks::clock::now() - start).count();

  double routing_time = 0;
  if (work.routes()) {
    const std::size_t rounds = std::min<std::size_t>(round, 100);
    const auto routing_start = benchmarks::clock::now();
    for (std::size_t i = 0; i < rounds; ++i)
      work.route(i % work.copies(), inputs[i % inputs.size()]);
    routing_time = seconds(benchmarks::clock::now() - routing_start).count() / static_cast<double>(rounds);
  }

  state.counters["GFLOP/s"] = flops / time * 1e-9;
  state.counters["GB/s"] = bytes / time * 1e-9;
  state.counters["peak_fraction"] = flops / time / limit.peak;
  state.counters["dram_fraction"] = bytes / time / limit.dram;
  state.counters["efficiency"] = std::max(flops / limit.peak, bytes / limit.dram) / time;
  state.counters["router_share"] = routing_time * static_cast<double>(round) / time;
  state.counters["peak_gflops"] = limit.peak * 1e-9;
  state.counters["dram_gbs"] = limit.dram * 1e-9;
} catch (const std::exception& reason) {
  state.SkipWithError(reason.what());
}

} // namespace

int main(int argc, char** argv) try {
  // Warm weights, one copy, are for a look whether all of it runs: cold ones may take gigabytes where caches are large.
  workshop shop(take_flag(argc, argv, "--warm") ? model::copies::one : model::copies::cold);
  const auto cores = static_cast<std::size_t>(omp_get_max_threads());
  for (const layer_shape& shape : chosen_shapes(argc, argv))
    for (const std::size_t tokens : {1U, 4U, 16U, 64U, 256U, 1024U, 4096U})
      for (const std::size_t threads : std::set<std::size_t>{1, cores})
        for (const routing spread : all_routings)
          for (const subject& what : subjects())
            if (what.takes(shape)) {
              const cell at{shape, what, tokens, threads, spread};
              benchmark::RegisterBenchmark(at.name().c_str(), [&shop, at](benchmark::State& state) {
                measure(state, shop, at);
              })->Unit(benchmark::kMillisecond);
            }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  for (const subject& what : subjects())
    benchmark::AddCustomContext("version." + what.name, what.version);
  benchmark::AddCustomContext("compiler", HMOE_BENCHMARKS_COMPILER);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
} catch (const std::exception& reason) {
  std::cerr << "layer: " << reason.what() << "\n";
  return 1;
}
