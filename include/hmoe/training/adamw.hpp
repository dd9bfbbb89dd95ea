// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/operations.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hmoe::training {

struct adamw_options {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

/// What all values of a tensor have in common in step t.
template <float_or_double T> struct adamw_factors {
  T keep;         ///< 1 − η λ, or 1 without decay
  T beta1, beta2; ///< of the running means
  T rate;         ///< η / (1 − β₁ᵗ)
  T root_scale;   ///< 1 / √(1 − β₂ᵗ)
  T epsilon;
};

/// Values that one task updates.
inline constexpr std::size_t adamw_values_per_task = std::size_t{1} << 15U;

/// m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← keep θ − rate m / (√v root_scale + ε) for `count` values, by the
/// backend where it has the operation (hmoe/execution/operations.hpp).
template <class Math, class T>
void update_adamw(const Math& math, const adamw_factors<T>& by, std::size_t count, T* value, const T* gradient, T* m,
                  T* v) noexcept {
  if constexpr (operations::update_adamw<Math, T, adamw_factors<T>>())
    math.update_adamw(by, count, value, gradient, m, v);
  else
    for (std::size_t i = 0; i < count; ++i) {
      const T g = gradient[i];
      m[i] = by.beta1 * m[i] + (T(1) - by.beta1) * g;
      v[i] = by.beta2 * v[i] + (T(1) - by.beta2) * g * g;
      value[i] = by.keep * value[i] - by.rate * m[i] / (std::sqrt(v[i]) * by.root_scale + by.epsilon);
    }
}

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): with m and v the running means of g and g²,
///   θ ← θ − η (m̂ / (√v̂ + ε) + λ θ),   m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ);
/// the decay λ is decoupled from the gradient and applies to parameters with `decay` set. Moments are kept in T.
template <float_or_double T> class adamw {
public:
  /// For parameters of the sizes in `list`; each later step takes a list of the same tensors in the same order.
  adamw(adamw_options options, const std::vector<parameter<T>>& list) : options_(options) {
    require(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
            "AdamW needs betas in [0, 1), given are ", options.beta1, " and ", options.beta2);
    require(options.epsilon > 0, "AdamW needs epsilon > 0, given is ", options.epsilon);
    require(std::isfinite(options.weight_decay) && options.weight_decay >= 0,
            "AdamW needs a finite weight_decay >= 0, given is ", options.weight_decay);
    for (const parameter<T>& p : list) {
      require(p.value.size() == p.gradient.size(), "parameter ", p.name, " has ", p.value.size(), " values and ",
              p.gradient.size(), " gradient values");
      first_.emplace_back(p.value.size()).fill(T(0));
      second_.emplace_back(p.value.size()).fill(T(0));
    }
  }

  /// One update with learning rate η from the gradients in the list, with the context's arithmetic and threads; how
  /// many threads these are changes no bit.
  template <execution_context Context>
  void step(const Context& ctx, const std::vector<parameter<T>>& list, double learning_rate) {
    update(ctx.backend(), list, learning_rate,
           [&](std::size_t tasks, const auto& task) { ctx.executor().for_each(tasks, task); });
  }
  /// The same on the calling thread, in plain loops.
  void step(const std::vector<parameter<T>>& list, double learning_rate) {
    update(plain_loops{}, list, learning_rate, [](std::size_t tasks, const auto& task) {
      for (std::size_t i = 0; i < tasks; ++i)
        task(i, std::size_t{0});
    });
  }

  /// The state beside the parameters, for checkpoints: number of steps and the two moments of each tensor.
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  void set_steps(std::uint64_t steps) noexcept { steps_ = steps; }
  [[nodiscard]] std::span<T> first_moment(std::size_t tensor) noexcept {
    return {first_[tensor].data(), first_[tensor].size()};
  }
  [[nodiscard]] std::span<T> second_moment(std::size_t tensor) noexcept {
    return {second_[tensor].data(), second_[tensor].size()};
  }
  /// The same by name, and room for a tensor that has another size now (zeros then): for what moves tensors.
  template <class Visitor> void visit_state(std::size_t tensor, Visitor&& visit) {
    visit("first_moment", first_moment(tensor));
    visit("second_moment", second_moment(tensor));
  }
  void resize_state(std::size_t tensor, std::size_t values) {
    for (buffer<T>* state : {&first_[tensor], &second_[tensor]})
      if (state->size() != values) {
        *state = buffer<T>(values);
        state->fill(T(0));
      }
  }

private:
  struct plain_loops {};

  template <class Math, class ForEach>
  void update(const Math& math, const std::vector<parameter<T>>& list, double learning_rate, const ForEach& for_each) {
    require(std::isfinite(learning_rate), "AdamW with a learning rate of ", learning_rate, ": it must be finite");
    require(list.size() == first_.size(), "AdamW was made for ", first_.size(), " tensors, given are ", list.size());
    for (std::size_t i = 0; i < list.size(); ++i)
      require(list[i].value.size() == first_[i].size() && list[i].gradient.size() == first_[i].size(), "AdamW: tensor ",
              list[i].name, " has ", list[i].value.size(), " values and ", list[i].gradient.size(),
              " gradient values instead of ", first_[i].size());
    ++steps_;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const adamw_factors<T> by = factors(list[i], learning_rate);
      const std::size_t size = list[i].value.size();
      for_each((size + adamw_values_per_task - 1) / adamw_values_per_task, [&](std::size_t task, std::size_t) {
        const std::size_t first = task * adamw_values_per_task;
        training::update_adamw(math, by, std::min(adamw_values_per_task, size - first), list[i].value.data() + first,
                               list[i].gradient.data() + first, first_[i].data() + first, second_[i].data() + first);
      });
    }
  }
  adamw_factors<T> factors(const parameter<T>& tensor, double learning_rate) const {
    const auto count = static_cast<double>(steps_);
    return {static_cast<T>(tensor.decay ? 1 - learning_rate * options_.weight_decay : 1.0),
            static_cast<T>(options_.beta1),
            static_cast<T>(options_.beta2),
            static_cast<T>(learning_rate / (1 - std::pow(options_.beta1, count))),
            static_cast<T>(1 / std::sqrt(1 - std::pow(options_.beta2, count))),
            static_cast<T>(options_.epsilon)};
  }

  adamw_options options_;
  std::uint64_t steps_ = 0;
  std::vector<buffer<T>> first_, second_;
};

template <class T> adamw(adamw_options, const std::vector<parameter<T>>&) -> adamw<T>;

} // namespace hmoe::training

#include <hmoe/core/macros_on.hpp>
