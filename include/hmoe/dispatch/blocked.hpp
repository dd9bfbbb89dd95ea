// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>

#include <cstddef>

namespace hmoe::dispatch {

/// "Given at run time": blocked<>{n}.
inline constexpr std::size_t rows_at_run_time = 0;

/// Permutes the tokens into expert order, as `sorted`, and gives the experts blocks of Rows rows, each with its expert;
/// the last block of an expert has what is left. So the unit of work is a block however uneven the load is, and the
/// weights of an expert are read once for each of its blocks. The row blocks of MegaBlocks (Gale et al. 2022, arXiv
/// 2211.15841) for ragged widths, where none is padded. Backward, a gradient is one sum over all rows of an expert, so
/// blocks are joined. blocked<32>{} fixes the rows at compile time, blocked<>{32} at run time; the results are the
/// same.
template <std::size_t Rows = rows_at_run_time> class blocked {
public:
  constexpr blocked() noexcept
    requires(Rows != rows_at_run_time)
  = default;
  /// hmoe::error for blocks of 0 rows.
  explicit blocked(std::size_t rows)
    requires(Rows == rows_at_run_time)
      : rows_(rows) {
    require(rows != 0, "dispatch::blocked with blocks of 0 rows: give at least 1");
  }
  [[nodiscard]] constexpr std::size_t rows() const noexcept {
    if constexpr (Rows == rows_at_run_time)
      return rows_;
    else
      return Rows;
  }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("rows", rows()); }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    build_plan(ctx, experts, tape);
    permuted::forward(ctx, experts, x, y, tape, rows());
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    permuted::lay_out_forward(dry, experts, tape, {limits.entries, limits.tokens, rows()});
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>&, const batch_limits& limits) const {
    permuted::lay_out_backward<T>(dry, experts, {limits.entries, limits.tokens});
  }
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }

private:
  std::size_t rows_ = Rows;
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
