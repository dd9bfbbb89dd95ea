// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/preference.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

/// Logits that are NaN or infinite, and experts out of service.
namespace hmoe::routing {

/// What to do when a logit is NaN or infinite.
///   error       hmoe::error before anything is written to the caller's output
///   propagate   it runs through to the output of the tokens concerned
///   exclude     −∞ takes the expert out of service for the token (a router bias of −∞: for all): selections, weights,
///               losses and gradients are as if it were not there, and its probability in the trace is 0. NaN, +∞, and
///               a token that has no expert left are an hmoe::error. A selection sees −∞ in place of the expert's
///               probability; it may choose it, where fewer are left than it wants, and the choice is dropped.
enum class non_finite { error, propagate, exclude };

namespace detail {

/// hmoe::error where the policy does not allow a logit of the token, or leaves it no expert.
template <class T> void check_finite(non_finite policy, std::size_t token, vector_view<const T> logits) {
  if (policy == non_finite::propagate)
    return;
  std::size_t left = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    const bool excluded = policy == non_finite::exclude && logits[e] == -std::numeric_limits<T>::infinity();
    require(excluded || std::isfinite(logits[e]), "the router's logit of token ", token, " for expert ", e, " is ",
            logits[e]);
    left += excluded ? 0 : 1;
  }
  require(left != 0, "token ", token, " has no expert left: all ", logits.size(), " logits of the router are -inf");
}
/// Zeros in place of the values of experts that are out of service for the token.
template <class T> void clear_excluded(const router_trace<T>& trace, std::size_t token, vector_view<T> row) noexcept {
  for (std::size_t e = 0; e < row.size(); ++e)
    if (trace.is_excluded(token, e))
      row[e] = 0;
}
/// The token's probabilities with −∞ for experts that are out of service, in `row`; the trace's own row where none is.
template <class T>
[[nodiscard]] vector_view<const T> with_excluded_last(const router_trace<T>& trace, std::size_t token,
                                                      vector_view<T> row) noexcept {
  bool any = false;
  for (std::size_t e = 0; e < row.size(); ++e) {
    const bool excluded = trace.is_excluded(token, e);
    row[e] = excluded ? least_preferred<T> : trace.probabilities()(token, e);
    any = any || excluded;
  }
  return any ? vector_view<const T>(row) : trace.probabilities().row(token);
}
/// Takes chosen experts that are out of service away; returns how many are left.
template <class T>
[[nodiscard]] index_t drop_excluded(const router_trace<T>& trace, std::size_t token, vector_view<index_t> ids,
                                    index_t count) noexcept {
  index_t kept = 0;
  for (index_t i = 0; i < count; ++i)
    if (!trace.is_excluded(token, ids[i]))
      ids[kept++] = ids[i];
  return kept;
}
/// A weighting may not look at the value that is NaN, and the choice among NaN means nothing: it must show.
template <class T> void spread_nan(vector_view<const T> p, vector_view<T> weights) noexcept {
  for (const T value : p)
    if (std::isnan(value))
      std::fill(weights.begin(), weights.end(), value);
}

} // namespace detail
} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
