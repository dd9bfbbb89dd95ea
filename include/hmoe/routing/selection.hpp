// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <concepts>
#include <limits>
#include <memory_resource>

namespace hmoe {

/// Chooses a token's experts. A function (object, lambda) of one row:
///   count = selection(p, chosen)            p[N]: the token's probabilities; writes `count` different ids into
///   `chosen` count = selection(p, chosen, scratch)   the same with scratch_size(N) values of scratch, for policies
///   that need some
/// It may choose none. Optional members: max_selected(N), the most it will ever choose (default N; `chosen` has that
/// size), and validate(N), which throws hmoe::error when it cannot work with N experts. The order of ids is free:
/// the router sorts them, so that all sums run over ascending ids. Functions that a device shall run too are
/// HMOE_HOST_DEVICE.
template <class S, class T>
concept selection = std::copy_constructible<S> &&
                    (requires(const S& s, vector_view<const T> p, vector_view<index_t> chosen) {
                      { s(p, chosen) } -> std::convertible_to<std::size_t>;
                    } || requires(const S& s, vector_view<const T> p, vector_view<index_t> chosen,
                                  vector_view<T> scratch, std::size_t n) {
                      { s(p, chosen, scratch) } -> std::convertible_to<std::size_t>;
                      { s.scratch_size(n) } -> std::convertible_to<std::size_t>;
                    });

/// Chooses for the whole batch at once, where tokens compete: selection(trace, chosen[T×max_selected(N)], counts[T],
/// memory) writes counts[t] ids into row t of `chosen`; scratch comes from `memory`, and workspace_bytes(T, N), where
/// it is a member, says how much at most. A token's result then depends on its batch, which is what such policies are
/// for.
template <class S, class T>
concept batch_selection =
    std::copy_constructible<S> &&
    requires(const S& s, const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
             std::pmr::memory_resource* memory) { s(trace, chosen, counts, memory); };

namespace routing {

/// The order that experts are preferred in: higher value first, the lower id on ties; NaN comes last.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE constexpr bool preferred(T a, index_t id_a, T b, index_t id_b) noexcept {
  if (a != a || b != b)
    return (a != a) == (b != b) ? id_a < id_b : b != b;
  return a != b ? a > b : id_a < id_b;
}

/// −∞. (Device code may use a constant, but not call std::numeric_limits.)
template <class T> inline constexpr T least_preferred = -std::numeric_limits<T>::infinity();

/// The most preferred expert among those after `previous` in that order (no_index: among all), or no_index when
/// there is none. Walking on from the last choice needs neither a sort nor memory.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE constexpr index_t next_preferred(vector_view<const T> p, index_t previous) noexcept {
  index_t best = no_index;
  for (index_t i = 0; i < p.size(); ++i) {
    if (previous != no_index && !preferred(p[previous], previous, p[i], i))
      continue;
    if (best == no_index || preferred(p[i], i, p[best], best))
      best = i;
  }
  return best;
}

/// How much scratch a selection wants for a row of n, and its call with or without.
HMOE_CALLS_ARGUMENT template <class S>
[[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t selection_scratch(const S& select, std::size_t n) {
  if constexpr (requires { select.scratch_size(n); })
    return select.scratch_size(n);
  else
    return 0;
}
HMOE_CALLS_ARGUMENT template <class S, class T>
HMOE_HOST_DEVICE constexpr std::size_t select_row(const S& select, vector_view<const T> p, vector_view<index_t> chosen,
                                                  vector_view<T> scratch) {
  if constexpr (requires { select.scratch_size(p.size()); })
    return static_cast<std::size_t>(select(p, chosen, scratch));
  else
    return static_cast<std::size_t>(select(p, chosen));
}

/// The same on a backend, which may have select(selection, p, chosen), or select(selection, p, chosen, scratch) with
/// the selection's own scratch, for selections that it does faster; it must choose the same experts.
template <class Math, class S, class T>
std::size_t select_row(const Math& math, const S& select, vector_view<const T> p, vector_view<index_t> chosen,
                       vector_view<T> scratch) {
  if constexpr (requires { math.select(select, p, chosen, scratch); })
    return math.select(select, p, chosen, scratch);
  else if constexpr (requires { math.select(select, p, chosen); })
    return math.select(select, p, chosen);
  else
    return select_row(select, p, chosen, scratch);
}

} // namespace routing
} // namespace hmoe
