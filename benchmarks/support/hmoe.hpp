// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

#include "subject.hpp"

#include <Eigen/Core>

#include <optional>
#include <utility>
#include <variant>

namespace benchmarks {

/// The model's own layers on one of hmoe's backends.
template <class Backend> class hmoe_runner final : public runner {
public:
  explicit hmoe_runner(const model& weights) : weights_(weights) {}

  void set_threads(std::size_t threads) override {
    Eigen::setNbThreads(1); // the executor's threads are the only ones
    cpu_.emplace(Backend{}, hmoe::executors::openmp{threads});
  }
  [[nodiscard]] std::size_t copies() const override { return weights_.copy_count(); }
  void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) override {
    std::visit([&](const auto& layer) { layer.forward(*cpu_, input.x.view(), y); }, weights_.layer(copy));
  }
  [[nodiscard]] bool routes() const override { return true; }
  void route(std::size_t copy, const batch& input) override {
    std::visit(
        [&](const auto& layer) {
          const hmoe::workspace::scope scope(cpu_->workspace());
          trace_.resize(input.x.rows(), layer.size(), layer.router().saved_per_token(), false);
          layer.router().forward(*cpu_, input.x.view(), trace_, assigned_);
          hmoe::dispatch::build_plan(assigned_, layer.size(), plan_);
        },
        weights_.layer(copy));
  }

private:
  const model& weights_;
  std::optional<hmoe::context<Backend, hmoe::executors::openmp>> cpu_;
  hmoe::router_trace<float> trace_;
  hmoe::assignment<float> assigned_;
  hmoe::plan plan_;
};

} // namespace benchmarks
