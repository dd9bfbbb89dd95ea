// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>

#include <cmath>
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

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): with m and v the running means of g and g²,
///   θ ← θ − η (m̂ / (√v̂ + ε) + λ θ),   m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ);
/// the decay λ is decoupled from the gradient and applies to parameters with `decay` set. Moments are kept in T.
template <real T> class adamw {
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
      first_.emplace_back(p.value.size(), T(0));
      second_.emplace_back(p.value.size(), T(0));
    }
  }

  /// One update with learning rate η from the gradients in the list.
  void step(const std::vector<parameter<T>>& list, double learning_rate) {
    require(std::isfinite(learning_rate), "AdamW with a learning rate of ", learning_rate, ": it must be finite");
    require(list.size() == first_.size(), "AdamW was made for ", first_.size(), " tensors, given are ", list.size());
    for (std::size_t i = 0; i < list.size(); ++i)
      require(list[i].value.size() == first_[i].size() && list[i].gradient.size() == first_[i].size(), "AdamW: tensor ",
              list[i].name, " has ", list[i].value.size(), " values and ", list[i].gradient.size(),
              " gradient values instead of ", first_[i].size());
    ++steps_;
    const auto count = static_cast<double>(steps_);
    const double correction1 = 1 - std::pow(options_.beta1, count), correction2 = 1 - std::pow(options_.beta2, count);
    const auto beta1 = static_cast<T>(options_.beta1), beta2 = static_cast<T>(options_.beta2);
    const auto rate = static_cast<T>(learning_rate / correction1);
    const auto root_scale = static_cast<T>(1 / std::sqrt(correction2));
    const auto epsilon = static_cast<T>(options_.epsilon);
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto keep = static_cast<T>(list[i].decay ? 1 - learning_rate * options_.weight_decay : 1.0);
      T* value = list[i].value.data();
      const T* gradient = list[i].gradient.data();
      T* m = first_[i].data();
      T* v = second_[i].data();
      for (std::size_t j = 0; j < list[i].value.size(); ++j) {
        const T g = gradient[j];
        m[j] = beta1 * m[j] + (T(1) - beta1) * g;
        v[j] = beta2 * v[j] + (T(1) - beta2) * g * g;
        value[j] = keep * value[j] - rate * m[j] / (std::sqrt(v[j]) * root_scale + epsilon);
      }
    }
  }

  /// The state beside the parameters, for checkpoints: number of steps and the two moments of each tensor.
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  void set_steps(std::uint64_t steps) noexcept { steps_ = steps; }
  [[nodiscard]] std::span<T> first_moment(std::size_t tensor) noexcept { return first_[tensor]; }
  [[nodiscard]] std::span<T> second_moment(std::size_t tensor) noexcept { return second_[tensor]; }

private:
  adamw_options options_;
  std::uint64_t steps_ = 0;
  std::vector<std::vector<T>> first_, second_;
};

template <class T> adamw(adamw_options, const std::vector<parameter<T>>&) -> adamw<T>;

} // namespace hmoe::training
