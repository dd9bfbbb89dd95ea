// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>

/// Batches with padding tokens: routing_inputs::valid.
namespace hmoe::routing::detail {

/// hmoe::error unless there is no mask, or one for each token.
template <class T> void require_mask(const router_trace<T>& trace, std::size_t tokens) {
  const std::size_t given = trace.inputs().valid.size();
  require(given == 0 || given == tokens, "routing_inputs::valid says of ", given,
          " tokens whether they are valid, the batch has ", tokens);
}

/// x, or where it has padding that is not 0, a copy in `memory` in which padding is 0: products with it then get
/// nothing from padding, whatever its values.
template <execution_context Context, class T>
[[nodiscard]] matrix_view<const T> without_padding(const Context& ctx, matrix_view<const T> x,
                                                   const router_trace<T>& trace, matrix<T>& memory) {
  const auto is_zero = [](T value) { return value == T(0); };
  bool clean = true;
  for (std::size_t t = 0; t < x.rows() && clean; ++t)
    clean = trace.is_valid(t) || std::ranges::all_of(x.row(t), is_zero);
  if (clean)
    return x;
  memory.resize_for_overwrite(x.rows(), x.cols());
  hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
    if (trace.is_valid(t))
      std::ranges::copy(x.row(t), memory.row(t).begin());
    else
      std::ranges::fill(memory.row(t), T(0));
  });
  return std::as_const(memory).view();
}

/// What it takes where the padding is not 0.
template <class T> void lay_out_without_padding(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t d) {
  static_cast<void>(matrix<T>::for_overwrite(tokens, d, memory));
}

} // namespace hmoe::routing::detail

#include <hmoe/core/macros_on.hpp>
