// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace hmoe::training {

struct sgd_options {
  double momentum = 0;
  double weight_decay = 0;
};

/// Stochastic gradient descent with momentum: b ← μ b + g + λ θ, θ ← θ − η b, as PyTorch defines it (no dampening).
template <float_or_double T> class sgd {
public:
  sgd(sgd_options options, const std::vector<parameter<T>>& list) : options_(options) {
    require(options.momentum >= 0 && options.momentum < 1, "SGD needs a momentum in [0, 1), given is ",
            options.momentum);
    require(std::isfinite(options.weight_decay) && options.weight_decay >= 0,
            "SGD needs a finite weight_decay >= 0, given is ", options.weight_decay);
    for (const parameter<T>& p : list)
      velocity_.emplace_back(p.value.size(), T(0));
  }

  void step(const std::vector<parameter<T>>& list, double learning_rate) {
    require(std::isfinite(learning_rate), "SGD with a learning rate of ", learning_rate, ": it must be finite");
    require(list.size() == velocity_.size(), "SGD was made for ", velocity_.size(), " tensors, given are ",
            list.size());
    for (std::size_t i = 0; i < list.size(); ++i)
      require(list[i].value.size() == velocity_[i].size() && list[i].gradient.size() == velocity_[i].size(),
              "SGD: tensor ", list[i].name, " has ", list[i].value.size(), " values and ", list[i].gradient.size(),
              " gradient values instead of ", velocity_[i].size());
    const auto momentum = static_cast<T>(options_.momentum), rate = static_cast<T>(learning_rate);
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto decay = static_cast<T>(list[i].decay ? options_.weight_decay : 0.0);
      for (std::size_t j = 0; j < list[i].value.size(); ++j) {
        T& velocity = velocity_[i][j];
        velocity = momentum * velocity + list[i].gradient[j] + decay * list[i].value[j];
        list[i].value[j] -= rate * velocity;
      }
    }
  }

  [[nodiscard]] std::span<T> velocity(std::size_t tensor) noexcept { return velocity_[tensor]; }
  /// The same by name, and room for a tensor that has another size now (zeros then): for what moves tensors.
  template <class Visitor> void visit_state(std::size_t tensor, Visitor&& visit) {
    visit("velocity", velocity(tensor));
  }
  void resize_state(std::size_t tensor, std::size_t values) {
    if (velocity_[tensor].size() != values)
      velocity_[tensor] = std::vector<T>(values, T(0));
  }

private:
  sgd_options options_;
  std::vector<std::vector<T>> velocity_;
};

template <class T> sgd(sgd_options, const std::vector<parameter<T>>&) -> sgd<T>;

} // namespace hmoe::training

#include <hmoe/core/macros_on.hpp>
