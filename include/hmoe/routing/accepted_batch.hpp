// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/routing/router_policy.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe::routing {

/// Which batches a router takes: for code that makes some up, as diagnose does.
struct accepted_batch {
  std::size_t tokens = 0;     ///< exactly this number; 0: any
  std::size_t vocabulary = 0; ///< token ids are below it; 0: any ids
};

/// Its own accepted_batch(), where a router has one. Else: the number of tokens of the routing that a replay repeats,
/// and the vocabulary of the selection.
template <router_policy R> [[nodiscard]] accepted_batch accepted_batch_of(const R& router) {
  accepted_batch result;
  if constexpr (requires {
                  { router.accepted_batch() } -> std::same_as<accepted_batch>;
                })
    return router.accepted_batch();
  if constexpr (requires { router.recorded().tokens(); })
    result.tokens = router.recorded().tokens();
  if constexpr (requires { router.selection_policy().vocabulary(); })
    result.vocabulary = router.selection_policy().vocabulary();
  return result;
}

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
