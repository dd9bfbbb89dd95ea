// SPDX-License-Identifier: MIT
// Banks of the experts that a batch chose, on the tensors' memory or on widened copies.
#pragma once

#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "chosen_step.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <deque>
#include <memory_resource>
#include <span>
#include <type_traits>
#include <vector>

namespace hmoe::python {

template <class T, std::size_t Lanes>
using bank_of =
    std::conditional_t<Lanes == 2, experts::glu_bank<T, chosen_gate>, experts::mlp_bank<T, chosen_activation>>;

template <class T, std::size_t Lanes, class Weights>
[[nodiscard]] bank_of<T, Lanes> make_bank(const bank_memory& all, Weights weights) {
  if constexpr (Lanes == 2)
    return bank_of<T, Lanes>(std::move(weights), chosen_gate{all.function, all.limit, all.alpha});
  else
    return bank_of<T, Lanes>(std::move(weights));
}

template <class To, class From> void convert_row(const From* from, std::size_t count, To* to) noexcept {
  for (std::size_t i = 0; i < count; ++i)
    to[i] = static_cast<To>(from[i]);
}

/// f(name of the matrix, its rows in the tensor, rows, columns, distance of rows) of an expert, biases as single rows.
template <std::size_t Lanes, class F> void for_each_matrix(const bank_memory& all, const expert_memory& e, const F& f) {
  if (all.transposed) { // lanes lie in one matrix
    f(e.lanes[0], all.d_model, Lanes * e.width, e.lane_stride);
    f(e.output, e.width, all.d_model, e.output_stride);
  } else {
    for (std::size_t l = 0; l < Lanes; ++l)
      f(e.lanes[l], e.width, all.d_model, e.lane_stride);
    f(e.output, all.d_model, e.width, e.output_stride);
  }
  if (all.biased) {
    for (std::size_t l = 0; l < Lanes; ++l)
      f(e.lane_biases[l], std::size_t{1}, e.width, e.width);
    f(e.output_bias, std::size_t{1}, all.d_model, all.d_model);
  }
}

/// The tensors of an expert from matrices in the order of for_each_matrix.
template <class T, std::size_t Lanes>
[[nodiscard]] experts::ffn_tensors<T, Lanes> as_tensors(const matrix_view<T>* matrices, bool biased) {
  experts::ffn_tensors<T, Lanes> result{.lanes = {}, .output = matrices[Lanes]};
  for (std::size_t l = 0; l < Lanes; ++l) {
    result.lanes[l] = matrices[l];
    if (biased)
      result.lane_biases[l] = matrices[Lanes + 1 + l];
  }
  if (biased)
    result.output_bias = matrices[2 * Lanes + 1];
  return result;
}

template <std::size_t Lanes> inline constexpr std::size_t most_matrices = 2 * (Lanes + 1);

/// Experts `ids` of a bank as they are: T is the tensors' type.
template <class T, std::size_t Lanes>
[[nodiscard]] std::vector<experts::ffn_tensors<T, Lanes>> tensors_in_place(const bank_memory& all,
                                                                           std::span<const std::size_t> ids) {
  std::vector<experts::ffn_tensors<T, Lanes>> result;
  result.reserve(ids.size());
  for (const std::size_t e : ids) {
    matrix_view<T> matrices[most_matrices<Lanes>];
    std::size_t next = 0;
    for_each_matrix<Lanes>(all, all.experts[e],
                           [&](void* data, std::size_t rows, std::size_t cols, std::size_t stride) {
                             matrices[next++] = {static_cast<T*>(data), rows, cols, stride};
                           });
    result.push_back(as_tensors<T, Lanes>(matrices, all.biased));
  }
  return result;
}

/// Memory of type T for the experts `ids` of a bank, from `memory`, which takes it back by itself (a workspace).
/// Tensors at no address have no copy.
template <class T, std::size_t Lanes> class copied_tensors {
public:
  copied_tensors(const bank_memory& all, std::span<const std::size_t> ids, std::pmr::memory_resource* memory)
      : all_(&all), ids_(ids) {
    for (const std::size_t e : ids) {
      matrix_view<T> matrices[most_matrices<Lanes>];
      std::size_t next = 0;
      for_each_matrix<Lanes>(
          all, all.experts[e], [&](const void* tensor, std::size_t rows, std::size_t cols, std::size_t) {
            T* data = nullptr;
            if (tensor != nullptr)
              data = static_cast<T*>(memory->allocate(std::max<std::size_t>(rows * cols, 1) * sizeof(T), alignof(T)));
            matrices[next++] = {data, rows, cols};
            copies_.push_back({data, rows, cols});
          });
      tensors_.push_back(as_tensors<T, Lanes>(matrices, all.biased));
    }
  }
  [[nodiscard]] const std::vector<experts::ffn_tensors<T, Lanes>>& tensors() const noexcept { return tensors_; }

  template <class S, class Context> void read(const Context& ctx) const {
    for_each_row<S>(ctx, [](const S* tensor, T* copy, std::size_t cols) { convert_row(tensor, cols, copy); });
  }
  template <class S, class Context> void write(const Context& ctx) const {
    for_each_row<S>(ctx, [](S* tensor, const T* copy, std::size_t cols) { convert_row(copy, cols, tensor); });
  }

private:
  template <class S, class Context, class F> void for_each_row(const Context& ctx, const F& f) const {
    std::size_t next = 0;
    for (const std::size_t e : ids_)
      for_each_matrix<Lanes>(*all_, all_->experts[e],
                             [&](void* data, std::size_t rows, std::size_t cols, std::size_t stride) {
                               const matrix_view<T> copy = copies_[next++];
                               if (data != nullptr)
                                 hmoe::for_each_row(ctx, rows, [&](std::size_t r) {
                                   f(static_cast<S*>(data) + r * stride, copy.row(r).data(), cols);
                                 });
                             });
  }

  const bank_memory* all_;
  std::span<const std::size_t> ids_;
  std::vector<matrix_view<T>> copies_;
  std::vector<experts::ffn_tensors<T, Lanes>> tensors_;
};

/// Rows of tokens in type T: the tensor itself, or a widened copy.
template <class T, class S, class Context>
[[nodiscard]] matrix_view<const T> read_rows(const Context& ctx, const void* data, std::size_t rows, std::size_t cols,
                                             matrix<T>& copy) {
  const auto* from = static_cast<const S*>(data);
  if constexpr (std::same_as<T, S>) {
    return {from, rows, cols};
  } else {
    copy.resize_for_overwrite(rows, cols);
    hmoe::for_each_row(ctx, rows,
                       [&](std::size_t r) { convert_row(from + r * cols, cols, copy.view().row(r).data()); });
    return copy.view();
  }
}
/// Rows of zeros to add to: the tensor itself, or a copy that write_rows rounds into it.
template <class T, class S, class Context>
[[nodiscard]] matrix_view<T> zero_rows(const Context& ctx, void* data, std::size_t rows, std::size_t cols,
                                       matrix<T>& copy) {
  matrix_view<T> result;
  if constexpr (std::same_as<T, S>) {
    result = {static_cast<T*>(data), rows, cols};
  } else {
    copy.resize_for_overwrite(rows, cols);
    result = copy.view();
  }
  hmoe::for_each_row(ctx, rows, [&](std::size_t r) { std::fill(result.row(r).begin(), result.row(r).end(), T(0)); });
  return result;
}
template <class T, class S, class Context>
void write_rows(const Context& ctx, [[maybe_unused]] matrix_view<const T> from, [[maybe_unused]] void* data) {
  if constexpr (!std::same_as<T, S>)
    hmoe::for_each_row(ctx, from.rows(), [&](std::size_t r) {
      convert_row(from.row(r).data(), from.cols(), static_cast<S*>(data) + r * from.cols());
    });
}

} // namespace hmoe::python
