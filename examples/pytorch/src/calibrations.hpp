// SPDX-License-Identifier: MIT
// Importance of neurons and budgets, on the weights of the caller and on what a recorded pass kept.
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "kernels/batch_rows.hpp"
#include "passes.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::python {

/// The sums of compress::calibration over passes of one layer, whose experts are given with each call.
class calibration_sums {
public:
  virtual ~calibration_sums() = default;
  /// What forward_pass kept of a batch: `saved` and `outputs`.
  virtual void add(const bank_memory& bank, const batch& in, const void* saved, const void* outputs) = 0;
  /// And the gradient of the layer's output, [tokens × d_model].
  virtual void add_gradient(const bank_memory& bank, const batch& in, const void* saved, const void* dy) = 0;
  /// [experts][neurons], by the name of a function of compress/importance.hpp.
  [[nodiscard]] virtual compress::neuron_values importance(const bank_memory& bank, const std::string& name) const = 0;
  /// The neurons that a budget leaves, ascending.
  [[nodiscard]] virtual compress::neuron_choice within(const bank_memory& bank,
                                                       const compress::neuron_values& importance,
                                                       const compress::neuron_budget& budget) const = 0;
  /// [experts] rows of each expert for each token.
  [[nodiscard]] virtual std::vector<double> loads() const = 0;
};

namespace calibration_detail {

/// As much of a layer as compress asks for.
template <class Experts> struct layer_of {
  Experts set;
  [[nodiscard]] const Experts& experts() const noexcept { return set; }
  [[nodiscard]] std::size_t size() const noexcept { return set.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return set.d_model(); }
};

/// The bank on the caller's memory. Nothing here runs its activation.
template <class Bank, std::size_t Lanes> [[nodiscard]] auto layer_on(const bank_memory& memory) {
  using T = typename Bank::value_type;
  std::vector<experts::ffn_tensors<const T, Lanes>> tensors;
  for (const expert_memory& from : memory.experts) {
    experts::ffn_tensors<const T, Lanes>& expert = tensors.emplace_back();
    for (std::size_t l = 0; l < Lanes; ++l) {
      expert.lanes[l] = {static_cast<const T*>(from.lanes[l]), from.width, memory.d_model, from.lane_stride};
      if (memory.biased)
        expert.lane_biases[l] = {static_cast<const T*>(from.lane_biases[l]), 1, from.width};
    }
    expert.output = {static_cast<const T*>(from.output), memory.d_model, from.width, from.output_stride};
    if (memory.biased)
      expert.output_bias = {static_cast<const T*>(from.output_bias), 1, memory.d_model};
  }
  expert_set set{Bank(experts::ffn_weights<T, Lanes>(tensors))};
  return layer_of<decltype(set)>{std::move(set)};
}

template <class Bank, std::size_t Lanes> class sums_of final : public calibration_sums {
  using T = typename Bank::value_type;

public:
  explicit sums_of(const bank_memory& bank) : sums_(layer_on<Bank, Lanes>(bank)) {}

  void add(const bank_memory& bank, const batch& in, const void* saved, const void* outputs) override {
    const std::lock_guard lock(mutex_);
    const auto layer = layer_on<Bank, Lanes>(bank);
    tape<T> pass;
    fill(pass, layer, in, saved);
    std::copy_n(static_cast<const T*>(outputs), pass.expert_output().size(), pass.expert_output().data());
    sums_.add(layer, pass);
  }
  void add_gradient(const bank_memory& bank, const batch& in, const void* saved, const void* dy) override {
    const std::lock_guard lock(mutex_);
    const auto layer = layer_on<Bank, Lanes>(bank);
    tape<T> pass;
    fill(pass, layer, in, saved);
    sums_.add_gradient(context{backends::simd{}}, layer, pass,
                       matrix_view<const T>(static_cast<const T*>(dy), in.tokens, layer.d_model()));
  }
  [[nodiscard]] compress::neuron_values importance(const bank_memory& bank, const std::string& name) const override {
    const std::lock_guard lock(mutex_);
    const auto layer = layer_on<Bank, Lanes>(bank);
    if (name == "magnitude_times_activation")
      return compress::magnitude_times_activation(layer, sums_);
    if (name == "squared_contribution")
      return compress::squared_contribution(layer, sums_);
    if (name == "heapr")
      return compress::heapr(layer, sums_);
    fail("no importance named '" + name + "': known are magnitude_times_activation, squared_contribution and heapr");
  }
  [[nodiscard]] compress::neuron_choice within(const bank_memory& bank, const compress::neuron_values& importance,
                                               const compress::neuron_budget& budget) const override {
    const std::lock_guard lock(mutex_);
    const std::vector<std::size_t> widths =
        compress::widths_within(layer_on<Bank, Lanes>(bank), importance, sums_, budget);
    compress::neuron_choice kept(importance.size());
    for (std::size_t e = 0; e < kept.size(); ++e) {
      const std::vector<double>& values = importance[e];
      kept[e].resize(values.size());
      std::iota(kept[e].begin(), kept[e].end(), std::size_t{0});
      std::ranges::sort(kept[e], [&](std::size_t a, std::size_t b) {
        return values[a] != values[b] ? values[a] > values[b] : a < b;
      });
      kept[e].resize(widths[e]);
      std::ranges::sort(kept[e]);
    }
    return kept;
  }
  [[nodiscard]] std::vector<double> loads() const override {
    const std::lock_guard lock(mutex_);
    std::vector<double> result(sums_.size());
    for (std::size_t e = 0; e < result.size(); ++e)
      result[e] = sums_.load(e);
    return result;
  }

private:
  /// The tape of a pass with these choices.
  template <class Layer> static void fill(tape<T>& pass, const Layer& layer, const batch& in, const void* saved) {
    pass.assignment() = batch_rows<T>(in, layer.size(), std::pmr::get_default_resource()).assigned();
    dispatch::build_plan(std::as_const(pass).assignment(), layer.size(), pass.plan());
    dispatch::lay_out_tape(layer.experts(), pass);
    pass.input().resize_for_overwrite(in.tokens, layer.d_model());
    const T* values = static_cast<const T*>(saved);
    for (std::size_t e = 0; e < layer.size(); ++e)
      if (const std::size_t rows = pass.plan().rows_of(e); rows != 0) {
        const matrix_view<T> to = pass.activations(e, rows);
        std::copy_n(values, to.size(), to.data());
        values += to.size();
      }
    pass.set_complete(true);
  }

  compress::calibration sums_;
  mutable std::mutex mutex_; ///< of sums_: passes are added without the interpreter's lock
};

} // namespace calibration_detail

[[nodiscard]] inline std::unique_ptr<calibration_sums> make_calibration(const bank_memory& bank) {
  namespace detail = calibration_detail;
  require(bank.type != scalar::bfloat16, "calibration: weights of bfloat16: convert them to float32 first");
  const bool wide = bank.type == scalar::float64;
  if (bank.gated)
    return wide ? std::unique_ptr<calibration_sums>(
                      std::make_unique<detail::sums_of<experts::glu_bank<double, experts::silu>, 2>>(bank))
                : std::make_unique<detail::sums_of<experts::glu_bank<float, experts::silu>, 2>>(bank);
  return wide ? std::unique_ptr<calibration_sums>(
                    std::make_unique<detail::sums_of<experts::mlp_bank<double, experts::relu>, 1>>(bank))
              : std::make_unique<detail::sums_of<experts::mlp_bank<float, experts::relu>, 1>>(bank);
}

} // namespace hmoe::python
