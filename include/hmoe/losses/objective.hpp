// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>

#include <array>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <utility>

namespace hmoe {

/// One line of an objective's report.
struct loss_term {
  std::string_view name;
  double value = 0;       ///< without the coefficient
  double coefficient = 0; ///< it counts with coefficient × value
};

/// What the losses of an objective came to.
template <std::size_t Count> struct loss_report {
  std::array<loss_term, Count> terms{};

  /// Σ coefficient × value: what to add to the task's loss.
  [[nodiscard]] double total() const noexcept {
    double sum = 0;
    for (const loss_term& term : terms)
      sum += term.coefficient * term.value;
    return sum;
  }
  /// The value of the first loss of that name, without its coefficient.
  [[nodiscard]] double value(std::string_view name) const {
    for (const loss_term& term : terms)
      if (term.name == name)
        return term.value;
    fail(std::string("no loss named '").append(name) + "' among the " + std::to_string(Count) + " of this objective");
  }
};

namespace detail {
template <class L>
concept has_coefficient = requires(const L& loss) {
  { loss.coefficient } -> std::convertible_to<double>;
};
template <class L>
concept has_name = requires {
  { L::name } -> std::convertible_to<std::string_view>;
};
} // namespace detail

/// A sum of auxiliary losses: objective aux{losses::parameter_penalty{0.1}, losses::router_entropy{0.03}}.
template <class... Losses> class objective {
  static_assert((detail::has_coefficient<Losses> && ...),
                "hmoe::objective: an element of Losses lacks a member coefficient, how much it counts in the training "
                "loss: add double coefficient = 1;");
  static_assert((detail::has_name<Losses> && ...),
                "hmoe::objective: an element of Losses lacks a static name, under which its value is reported: add "
                "static constexpr std::string_view name = \"…\";");
  static_assert((auxiliary_loss<Losses, float> && ...),
                "hmoe::objective: an element of Losses does not model hmoe::auxiliary_loss: it needs a member "
                "coefficient, a static name and evaluate(routed_batch<T>&) const, which returns the value and adds "
                "coefficient × gradient to the trace's sinks (see hmoe/losses/auxiliary_loss.hpp)");

public:
  explicit objective(Losses... losses) : losses_(std::move(losses)...) {}

  [[nodiscard]] const std::tuple<Losses...>& losses() const noexcept { return losses_; }

  /// Evaluates every loss on what forward left in the tape, and adds their gradients to its trace, where
  /// layer.backward(…) finds them. Call it once per forward pass. A trace without sinks, as inference leaves it, is an
  /// hmoe::error before any loss is evaluated.
  template <class Layer, class Tape> auto evaluate(const Layer& layer, Tape& tape) const {
    auto batch = layer.routing(tape);
    return evaluate(batch);
  }
  template <class T> [[nodiscard]] loss_report<sizeof...(Losses)> evaluate(routed_batch<T>& batch) const {
    losses::detail::require_gradient_sinks(batch);
    return std::apply(
        [&](const auto&... loss) {
          // Braces fix the order: losses add to the sinks from left to right.
          return loss_report<sizeof...(Losses)>{
              {loss_term{std::remove_cvref_t<decltype(loss)>::name, loss.evaluate(batch), loss.coefficient}...}};
        },
        losses_);
  }

private:
  std::tuple<Losses...> losses_;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
