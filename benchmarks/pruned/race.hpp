// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/scattered.hpp>

#include "../dispatch/any_experts.hpp"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

namespace benchmarks {

/// Seconds that passed; with one thread, seconds of the CPU in this thread, which do not run while others have the
/// core.
class stop_watch {
public:
  explicit stop_watch(std::size_t threads) : clock_(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC) {}
  [[nodiscard]] double seconds() const {
    timespec now{};
    ::clock_gettime(clock_, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

private:
  ::clockid_t clock_;
};

/// One layer in a race: times[a] are those of the passes with assignment a, flops[a] what these compute.
struct runner_times {
  const any_experts* experts;
  std::vector<std::vector<double>> times{};
  std::vector<double> flops{};

  /// Seconds per FLOP over all assignments, of the time that statistic(times[a]) takes of each.
  template <class F> [[nodiscard]] double per_flop(const F& statistic) const {
    double time = 0, work = 0;
    for (std::size_t a = 0; a < times.size(); ++a) {
      time += statistic(times[a]);
      work += flops[a];
    }
    return time / work;
  }
};
[[nodiscard]] inline double shortest(const std::vector<double>& times) { return std::ranges::min(times); }
[[nodiscard]] inline double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::ranges::nth_element(times, middle);
  return *middle;
}

struct race_options {
  std::size_t tokens, threads;
  double seconds; ///< for all layers together
  std::size_t fewest_rounds = 5, most_rounds = 400;
};

/// Layers take turns on the same tokens and assignments, in an order that moves on. The assignment is given, so times
/// are those of plan, experts and combine (dispatch::scattered), without a router. Other assignments and other layers
/// run between two passes with the same weights, so weights of few tokens are cold. outputs: y of each layer for the
/// first assignment.
[[nodiscard]] inline std::vector<runner_times> race(const std::vector<const any_experts*>& layers,
                                                    const std::vector<hmoe::assignment<float>>& assigned,
                                                    const race_options& options,
                                                    std::vector<hmoe::matrix<float>>& outputs) {
  const std::size_t d = layers[0]->d_model();
  hmoe::matrix<float> x(options.tokens, d), y(options.tokens, d);
  hmoe::fill_normal(hmoe::vector_view<float>(x.data(), x.size()), 1.0, hmoe::seed{1}, options.tokens);
  const dispatch_context ctx({}, hmoe::executors::openmp{options.threads}, switched_stages{});
  const stop_watch watch(options.threads);
  const auto run = [&](const any_experts& experts, const hmoe::assignment<float>& given) {
    const hmoe::workspace::scope scope(ctx.workspace());
    hmoe::tape<float> tape(&ctx.workspace(), false);
    tape.assignment().resize_tokens(given.tokens());
    std::ranges::copy(given.offsets(), tape.assignment().offsets().begin());
    tape.assignment().resize_entries();
    std::ranges::copy(given.experts(), tape.assignment().experts().begin());
    std::ranges::copy(given.weights(), tape.assignment().weights().begin());
    const double begin = watch.seconds();
    hmoe::dispatch::scattered{}.forward(ctx, experts, std::as_const(x).view(), y.view(), tape);
    return watch.seconds() - begin;
  };

  std::vector<runner_times> result;
  outputs.clear();
  for (const any_experts* experts : layers) {
    runner_times& runner = result.emplace_back(runner_times{experts});
    runner.times.resize(assigned.size());
    for (const hmoe::assignment<float>& given : assigned) {
      double& flops = runner.flops.emplace_back(0);
      for (const hmoe::index_t e : given.experts())
        flops += experts->flops_per_row(e);
    }
    run(*experts, assigned[0]);
    outputs.push_back(y);
  }
  double spent = 0;
  for (std::size_t round = 0; round < options.fewest_rounds || (spent < options.seconds && round < options.most_rounds);
       ++round)
    for (std::size_t a = 0; a < assigned.size(); ++a)
      for (std::size_t turn = 0; turn < layers.size(); ++turn) {
        const std::size_t i = (turn + round + a) % layers.size();
        result[i].times[a].push_back(run(*layers[i], assigned[a]));
        spent += result[i].times[a].back();
      }
  return result;
}

} // namespace benchmarks
