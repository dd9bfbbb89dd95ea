// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>

#include "machine.hpp"
#include "model.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace benchmarks {

/// How weights are stored, and what that makes of the limits and of the result.
struct data_type {
  std::string name;
  multiplier kind;
  double bytes_per_weight;
  double tolerance; ///< of the error of y against hmoe's f32 layer, both as norms
};
inline const data_type f32{"f32", multiplier::f32, 4, 1e-4};

/// One way to compute the layer, ready to run.
class runner {
public:
  virtual ~runner() = default;
  virtual void set_threads(std::size_t threads) = 0;
  /// Copies of the weights that take turns, so that they are cold.
  [[nodiscard]] virtual std::size_t copies() const = 0;
  /// y[T×d] = the layer of that copy of the weights for input.x.
  virtual void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) = 0;
  /// The router and the plan alone, for those who compute them; the others take them from the batch.
  [[nodiscard]] virtual bool routes() const { return false; }
  virtual void route(std::size_t /*copy*/, const batch& /*input*/) {}
};

/// What is measured: hmoe with some backend, or a competitor.
struct subject {
  std::string name;
  data_type type;
  std::string version; ///< for the report
  std::function<bool(const layer_shape&)> takes;
  std::function<std::unique_ptr<runner>(const model&)> make; ///< packs the weights, if it packs; the model stays alive
};

/// All of them; subjects.cpp is where a further one is added.
std::vector<subject> subjects();

} // namespace benchmarks
