// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe {

/// The rows of a batch that one expert works on: where they come from and where its results go. Dispatch strategies
/// make them, expert_set::forward and backward run them, kernels read them.
///   source  row i is x[tokens[i]], or x[i] where `tokens` is empty
///   sink    y[i] = out[i] where `entries` is empty; else y[tokens[i]] += weights[entries[i]] · out[i], or, when the
///           weights are on the input, row i is weights[entries[i]] · x[tokens[i]] and y[tokens[i]] += out[i]
///   saved   [count × saved_per_row(expert)] what backward needs of forward; no memory where nothing is to be kept
///   outputs [count × d] out as well, where rows scatter and are kept; else no memory
/// Backward reads x, saved and dy = ∂L/∂out and writes dx = ∂L/∂x, all of them contiguous: row i of each. dx without
/// memory is not wanted, which feed-forward banks take (experts/ffn_weights.hpp) and other kinds need not. Where rows
/// scatter, row i of ∂L/∂out is weights[entries[i]] · dy[tokens[i]], and dx[tokens[i]] += ∂L/∂x; saved is contiguous,
/// weights are on the output, and a list has each expert once. Only for sets with gathers_rows(ctx).
/// A list of them: experts ascend and none is without rows; a token comes at most once per expert. Either all rows of a
/// call scatter (have `entries`) or none. An expert may come several times in succession, with blocks of its rows:
///   forward   contiguous blocks may also come in any order, and an expert's need not follow one another
///   backward  each block lies in memory where the expert's block before it ends (x, saved, dy and dx): the door joins
///             them, so that a gradient is one sum over all rows in order, with the same bits however they are cut.
///             Backends see each expert once.
template <class T> struct expert_rows {
  std::size_t expert = 0; ///< its id in the set or the bank that is asked
  std::size_t count = 0;  ///< number of rows
  matrix_view<const T> x{};
  matrix_view<T> y{};
  matrix_view<T> saved{};
  matrix_view<const T> dy{};
  matrix_view<T> dx{};
  matrix_view<T> outputs{};
  vector_view<const index_t> tokens{};
  vector_view<const index_t> entries{};
  vector_view<const T> weights{};
  bool weights_on_input = false;

  /// Contiguous rows, forward and backward. (Functions, since nvcc 13.0 gives the values of designated initialisers
  /// behind an omitted member to the wrong members.)
  [[nodiscard]] static expert_rows forward(std::size_t expert, matrix_view<const T> x, matrix_view<T> y,
                                           matrix_view<T> saved) noexcept {
    expert_rows rows;
    rows.expert = expert;
    rows.count = x.rows();
    rows.x = x;
    rows.y = y;
    rows.saved = saved;
    return rows;
  }
  [[nodiscard]] static expert_rows backward(std::size_t expert, matrix_view<const T> x, matrix_view<T> saved,
                                            matrix_view<const T> dy, matrix_view<T> dx) noexcept {
    expert_rows rows;
    rows.expert = expert;
    rows.count = x.rows();
    rows.x = x;
    rows.saved = saved;
    rows.dy = dy;
    rows.dx = dx;
    return rows;
  }

  [[nodiscard]] bool scatters() const noexcept { return !entries.empty(); }
  [[nodiscard]] bool keeps() const noexcept { return saved.data() != nullptr; }
  [[nodiscard]] vector_view<const T> source(std::size_t i) const noexcept {
    return x.row(tokens.empty() ? i : tokens[i]);
  }
  [[nodiscard]] T input_weight(std::size_t i) const noexcept { return weights_on_input ? weights[entries[i]] : T(1); }
  [[nodiscard]] T output_weight(std::size_t i) const noexcept {
    return scatters() && !weights_on_input ? weights[entries[i]] : T(1);
  }

  /// For backward, the first of several blocks that lie one behind the other, with the rows of all of them: `rows` in
  /// number.
  [[nodiscard]] expert_rows joined(std::size_t rows) const noexcept {
    const auto longer = [&](auto view) {
      return view.rows() == 0 ? view : decltype(view)(view.data(), rows, view.cols(), view.stride());
    };
    expert_rows result = *this;
    result.count = rows;
    result.y = {};
    result.x = longer(x);
    result.saved = longer(saved);
    result.dy = longer(dy);
    result.dx = longer(dx);
    return result;
  }
  /// Rows [first, first + rows).
  [[nodiscard]] expert_rows part(std::size_t first, std::size_t rows) const noexcept {
    const auto some = [&](auto view) { return view.rows() == 0 ? view : view.row_block(first, rows); };
    expert_rows result = *this;
    result.count = rows;
    if (tokens.empty())
      result.x = some(x);
    else
      result.tokens = tokens.subview(first, rows);
    if (scatters())
      result.entries = entries.subview(first, rows);
    else
      result.y = some(y);
    result.saved = some(saved);
    result.outputs = some(outputs);
    if (!scatters()) {
      result.dy = some(dy);
      result.dx = some(dx);
    }
    return result;
  }
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
