// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace hmoe::losses {

/// Another loss on P = softmax(logits), for routers that have no probabilities (routing::unscored): what transformers'
/// load_balancing_loss_func takes for gpt-oss and GraniteMoE.
///   objective aux{losses::of_softmax{losses::load_balance{1e-2}}};
/// The gradient runs through the softmax into the sink of the logits. What other losses left in the sink of the
/// probabilities, which are the logits here, moves there, too. On a router that has probabilities it is an hmoe::error.
template <class Loss> class of_softmax {
public:
  double coefficient;
  static constexpr std::string_view name = Loss::name;

  explicit of_softmax(Loss loss) : coefficient(loss.coefficient), loss_(std::move(loss)) {}

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    require(!batch.trace.has_probabilities(), "of_softmax around ", name,
            ": the scores of this router are its probabilities: give the objective the loss without of_softmax");
    const as_probabilities<T> scope(batch.trace);
    return loss_.evaluate(batch);
  }

private:
  /// While it lives the trace has the softmax of its logits as probabilities. Experts out of service keep what they
  /// have: nobody reads it.
  template <class T> class as_probabilities {
  public:
    explicit as_probabilities(router_trace<T>& trace) : trace_(trace) {
      for_each_valid([&](auto z, auto p, auto d_z, auto d_p) {
        T largest = -std::numeric_limits<T>::infinity();
        for (const T value : z)
          largest = value > largest ? value : largest;
        T sum = 0;
        for (std::size_t e = 0; e < z.size(); ++e) {
          d_z[e] += std::exchange(d_p[e], T(0));
          if (!is_out(z[e]))
            sum += p[e] = std::exp(z[e] - largest);
        }
        for (std::size_t e = 0; e < z.size(); ++e)
          if (!is_out(z[e]))
            p[e] /= sum;
      });
      trace_.set_has_probabilities(true);
    }
    as_probabilities(const as_probabilities&) = delete;
    as_probabilities& operator=(const as_probabilities&) = delete;
    ~as_probabilities() {
      trace_.set_has_probabilities(false);
      for_each_valid([&](auto z, auto p, auto d_z, auto d_p) {
        T dot = 0;
        for (std::size_t e = 0; e < z.size(); ++e)
          dot += is_out(z[e]) ? T(0) : d_p[e] * p[e];
        for (std::size_t e = 0; e < z.size(); ++e) {
          const T slope = std::exchange(d_p[e], T(0));
          if (is_out(z[e]))
            continue;
          d_z[e] += p[e] * (slope - dot);
          p[e] = z[e];
        }
      });
    }

  private:
    [[nodiscard]] static bool is_out(T logit) noexcept { return logit == -std::numeric_limits<T>::infinity(); }
    template <class F> void for_each_valid(F f) {
      for (std::size_t t = 0; t < trace_.tokens(); ++t)
        if (trace_.is_valid(t))
          f(std::as_const(trace_).logits().row(t), trace_.probabilities().row(t), trace_.d_logits().row(t),
            trace_.d_probabilities().row(t));
    }
    router_trace<T>& trace_;
  };

  Loss loss_;
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
