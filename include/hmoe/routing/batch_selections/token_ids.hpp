// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>

namespace hmoe::routing::detail {

/// The vocabulary id of each token, which hash selections need.
template <class T> [[nodiscard]] vector_view<const index_t> token_ids_of(const router_trace<T>& trace) {
  const auto ids = trace.inputs().token_ids;
  require(ids.size() == trace.tokens(), "hash selection needs the id of each token: routing_inputs::token_ids has ",
          ids.size(), " for ", trace.tokens(), " tokens");
  return ids;
}

} // namespace hmoe::routing::detail

#include <hmoe/core/macros_on.hpp>
