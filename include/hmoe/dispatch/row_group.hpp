// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <cstddef>

namespace hmoe::dispatch {

/// The rows that one expert works on, with where they come from and where the results go. A bank that computes all its
/// experts at once offers `forward_rows(ctx, vector_view<const row_group<T>>) const`, so that gathering and combining
/// can happen inside its kernels.
///   source  row i is x[tokens[i]], or x[i] where `tokens` is empty
///   sink    y[i] = out[i]; where `entries` is not empty: y[tokens[i]] += weights[entries[i]] · out[i], or, when the
///           weights are on the input, row i is weights[entries[i]] · x[tokens[i]] and y[tokens[i]] += out[i]
/// A token comes at most once per group, an expert in at most one of the groups of a call; they are in ascending order
/// of experts, and so are the sums of a token. Either all of them scatter or none.
template <class T> struct row_group {
  std::size_t expert;
  std::size_t rows;
  matrix_view<const T> x;
  matrix_view<T> y;
  vector_view<const index_t> tokens{};
  vector_view<const index_t> entries{};
  vector_view<const T> weights{};
  bool weights_on_input = false;

  [[nodiscard]] bool scatters() const noexcept { return !entries.empty(); }
  [[nodiscard]] vector_view<const T> source(std::size_t i) const noexcept {
    return x.row(tokens.empty() ? i : tokens[i]);
  }
  [[nodiscard]] T input_weight(std::size_t i) const noexcept { return weights_on_input ? weights[entries[i]] : T(1); }
  [[nodiscard]] T output_weight(std::size_t i) const noexcept {
    return scatters() && !weights_on_input ? weights[entries[i]] : T(1);
  }
  /// Rows [first, first + count).
  [[nodiscard]] row_group part(std::size_t first, std::size_t count) const noexcept {
    row_group result = *this;
    result.rows = count;
    if (tokens.empty())
      result.x = x.row_block(first, count);
    else
      result.tokens = tokens.subview(first, count);
    if (scatters())
      result.entries = entries.subview(first, count);
    else
      result.y = y.row_block(first, count);
    return result;
  }
};

} // namespace hmoe::dispatch
