// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/operations.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

/// Chooses a token's experts. A function (object, lambda) of one row:
///   count = selection(p, chosen)            reads p[N], the token's probabilities; writes `count` distinct ids
///   count = selection(p, chosen, scratch)   the same, with scratch_size(N) values of scratch
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

namespace routing {

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

/// The same by the backend where it has the operation (hmoe/execution/operations.hpp).
template <class Math, class S, class T>
std::size_t select_row(const Math& math, const S& select, vector_view<const T> p, vector_view<index_t> chosen,
                       vector_view<T> scratch) {
  if constexpr (operations::select<Math, T, S>())
    return static_cast<std::size_t>(math.select(select, p, chosen, scratch));
  else
    return routing::select_row(select, p, chosen, scratch);
}

} // namespace routing
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
