// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/probes/stages.hpp>

#include "any_strategy.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace benchmarks {

/// What a strategy did at a point.
struct cell_result {
  std::string strategy, error = {};
  bool drops = false;
  std::vector<double> seconds = {};               ///< of each timed pass
  std::vector<double> shares = {};                ///< of each of them in the time of its round, of all strategies
  std::size_t rows = 0, padding = 0, dropped = 0; ///< rows that experts ran, spare ones of them; entries left out
  std::size_t workspace = 0;                      ///< bytes at most; in training without those of the tape
  std::array<double, 2 * hmoe::probes::stage_count> stages{}; ///< seconds of all workers in one pass, forward, backward
};

/// A batch that strategies take turns with: its tokens, some assignments of the same kind, and copies of the experts,
/// so that weights are cold.
struct dispatch_batch {
  const std::vector<std::unique_ptr<any_experts>>& copies;
  const std::vector<hmoe::assignment<float>>& assigned;
  std::size_t tokens, threads;
  bool training;
};

struct measuring_options {
  double seconds = 2; ///< for all strategies of a point together, once each has run
  std::size_t most_rounds = 200, fewest_rounds = 3;
  double left_out = 4; ///< a strategy whose first two passes take so many times the quickest one's runs no more
};

namespace detail {

inline void copy_assignment(const hmoe::assignment<float>& from, hmoe::assignment<float>& to) {
  to.resize_tokens(from.tokens());
  std::ranges::copy(from.offsets(), to.offsets().begin());
  to.resize_entries();
  std::ranges::copy(from.experts(), to.experts().begin());
  std::ranges::copy(from.weights(), to.weights().begin());
}

/// A strategy at a batch, with memory of its own.
class dispatch_turn {
public:
  dispatch_turn(const named_strategy& strategy, const dispatch_batch& batch)
      : strategy_(strategy), batch_(batch), ctx_({}, hmoe::executors::openmp{batch.threads}, switched_stages{}) {}

  /// Seconds of a pass; y and, in training, dx are written.
  double run(std::size_t copy, std::size_t variant, const hmoe::matrix<float>& x, hmoe::matrix<float>& y,
             hmoe::matrix<float>& dx, any_experts* gradients, hmoe::tape<float>& recording, cell_result* counts) {
    using clock = std::chrono::steady_clock;
    const any_experts& experts = *batch_.copies[copy];
    const hmoe::assignment<float>& assigned = batch_.assigned[variant];
    const auto note = [&](const hmoe::tape<float>& tape) {
      if (counts == nullptr)
        return;
      const bool planned = tape.plan().slots().size() == assigned.size();
      counts->padding = planned ? tape.plan().padding() : 0;
      counts->dropped = planned ? tape.plan().dropped() : 0;
      counts->rows = assigned.size() - counts->dropped + counts->padding;
    };
    const auto begin = clock::now();
    {
      const hmoe::workspace::scope scope(ctx_.workspace());
      if (!batch_.training) {
        hmoe::tape<float> tape(&ctx_.workspace(), false);
        copy_assignment(assigned, tape.assignment());
        strategy_.run->forward(ctx_, experts, x.view(), y.view(), tape);
        note(tape);
      } else {
        copy_assignment(assigned, recording.assignment());
        strategy_.run->forward(ctx_, experts, x.view(), y.view(), recording);
        recording.input() = x;
        hmoe::buffer<float> d_weights(assigned.size(), &ctx_.workspace());
        strategy_.run->backward(ctx_, experts, recording, std::as_const(y).view(), dx.view(), d_weights.view(),
                                *gradients);
        note(recording);
      }
    }
    return std::chrono::duration<double>(clock::now() - begin).count();
  }
  [[nodiscard]] const dispatch_context& context() const { return ctx_; }

private:
  const named_strategy& strategy_;
  const dispatch_batch& batch_;
  dispatch_context ctx_;
};

inline double relative_difference(const hmoe::matrix<float>& a, const hmoe::matrix<float>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double right = static_cast<double>(b.data()[i]), delta = static_cast<double>(a.data()[i]) - right;
    difference += delta * delta;
    size += right * right;
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

} // namespace detail

/// All strategies on one batch, in turns of random order, so that each of them meets every copy of the experts and
/// comes behind every other. The first one's results are those that the others have to reach. What fails has an `error`
/// and no times.
[[nodiscard]] inline std::vector<cell_result>
measure_point(const std::vector<named_strategy>& all, const dispatch_batch& batch, const measuring_options& options) {
  const std::size_t d = batch.copies[0]->d_model(), variants = batch.assigned.size();
  hmoe::matrix<float> x(batch.tokens, d), y(batch.tokens, d), dx(batch.tokens, d), expected, expected_dx;
  hmoe::fill_normal(hmoe::vector_view<float>(x.data(), x.size()), 1.0, hmoe::seed{1}, batch.tokens);
  const std::unique_ptr<any_experts> gradients = batch.training ? batch.copies[0]->copy() : nullptr;
  hmoe::tape<float> recording;

  std::vector<std::unique_ptr<detail::dispatch_turn>> turns;
  std::vector<cell_result> results;
  std::vector<double> first;
  std::size_t copy = 0;
  const auto run = [&](std::size_t i, std::size_t variant, cell_result* counts) {
    return turns[i]->run(copy++ % batch.copies.size(), variant, x, y, dx, gradients.get(), recording, counts);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    turns.push_back(std::make_unique<detail::dispatch_turn>(all[i], batch));
    cell_result& result = results.emplace_back(cell_result{.strategy = all[i].name, .drops = all[i].drops});
    first.push_back(0);
    try {
      first[i] = run(i, 0, &result);
      result.workspace = turns[i]->context().workspace().peak();
      if (expected.size() == 0 && !all[i].drops) {
        expected = y;
        expected_dx = dx;
      } else if (!all[i].drops) {
        const double off = std::max(detail::relative_difference(y, expected),
                                    batch.training ? detail::relative_difference(dx, expected_dx) : 0);
        const double allowed = all[i].bit_exact ? 0 : 1e-4;
        hmoe::require(off <= allowed, "its results differ by ", off, " from those of ", all[0].name, ", allowed is ",
                      allowed);
      }
    } catch (const std::exception& reason) {
      result.error = reason.what();
    }
  }

  double quickest = 1e30;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (results[i].error.empty())
      quickest = std::min(quickest, first[i]);
  std::vector<std::size_t> racing;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!results[i].error.empty())
      continue;
    const double most = std::max(options.left_out * quickest, 0.02);
    if (first[i] > most) // or it was the first to touch the memory of this point
      if (const double again = run(i, 0, nullptr); again > most) {
        results[i].seconds = {first[i], again};
        continue;
      }
    racing.push_back(i);
  }
  double spent = 0;
  std::mt19937_64 random{batch.tokens};
  for (std::size_t round = 0; round < options.fewest_rounds || (spent < options.seconds && round < options.most_rounds);
       ++round) {
    std::ranges::shuffle(racing, random);
    double of_round = 0;
    for (const std::size_t i : racing) {
      results[i].seconds.push_back(run(i, round % variants, nullptr));
      of_round += results[i].seconds.back();
    }
    for (const std::size_t i : racing)
      results[i].shares.push_back(results[i].seconds.back() / of_round);
    spent += of_round;
  }

  for (std::size_t i = 0; i < all.size(); ++i)
    if (results[i].error.empty()) {
      hmoe::probes::stages watched;
      watched.prepare(batch.threads);
      turns[i]->context().probe().to = &watched;
      run(i, 0, nullptr);
      for (std::size_t direction = 0; direction < 2; ++direction)
        for (std::size_t s = 0; s < hmoe::probes::stage_count; ++s)
          results[i].stages[direction * hmoe::probes::stage_count + s] =
              watched.total(static_cast<hmoe::probes::stage>(s), static_cast<hmoe::probes::direction>(direction))
                  .seconds;
    }
  return results;
}

/// The value that a share q of the sorted values reaches, between two of them in proportion.
[[nodiscard]] inline double quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

/// Every second value from the `first`-th one on; all of them where there are fewer than two.
[[nodiscard]] inline std::vector<double> every_second(const std::vector<double>& values, std::size_t first) {
  if (values.size() < 2)
    return values;
  std::vector<double> some;
  for (std::size_t i = first; i < values.size(); i += 2)
    some.push_back(values[i]);
  return some;
}

} // namespace benchmarks
