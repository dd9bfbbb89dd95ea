// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/grouped.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/dispatch/row_group.hpp>
#include <hmoe/dispatch/rows.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::dispatch {

/// The experts read the tokens where they are and add their weighted results to the output themselves: rows are
/// gathered while kernels pack them and combined in their epilogues, and no matrix of permuted rows exists. That is for
/// inference and for banks that can do it (simd::pack); other banks, and training, go the way of `sorted`. Same bits as
/// the other dropless strategies.
struct scattered {
  template <class Context, class Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& record) const {
    build_plan(std::as_const(record).assignment(), experts.size(), record.plan());
    if (record.recording()) {
      permuted::forward(ctx, experts, x, y, record);
      return;
    }
    for_each_row(ctx, y.rows(), [&](std::size_t t) { std::fill(y.row(t).begin(), y.row(t).end(), T(0)); });
    const tape<T>& routed = record;
    experts.for_each_bank([&](const auto& bank, std::size_t first) {
      const typename Context::workspace_scope scope(ctx.workspace());
      if constexpr (requires(vector_view<const row_group<T>> groups) { bank.forward_rows(ctx, groups); })
        forward_in_place(ctx, bank, first, routed, x, y);
      else
        forward_permuted(ctx, experts, first, bank.size(), routed, x, y);
    });
  }
  template <class Context, class Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& record, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, record, dy, dx, d_weights, gradients);
  }

  [[nodiscard]] static std::size_t slots(std::size_t, std::size_t entries, std::size_t) noexcept { return entries; }
  [[nodiscard]] static std::size_t workspace_rows(std::size_t, std::size_t slots) noexcept { return 3 * slots; }

private:
  template <class Context, class Bank, class T>
  static void forward_in_place(const Context& ctx, const Bank& bank, std::size_t first_expert, const tape<T>& record,
                               matrix_view<const T> x, matrix_view<T> y) {
    buffer<row_group<T>> groups(bank.size(), &ctx.workspace());
    std::size_t count = 0;
    for (std::size_t e = 0; e < bank.size(); ++e) {
      const std::size_t first = record.plan().offsets()[first_expert + e],
                        rows = record.plan().rows_of(first_expert + e);
      if (rows != 0)
        groups[count++] = {e,
                           rows,
                           x,
                           y,
                           record.plan().tokens().subview(first, rows),
                           record.plan().entries().subview(first, rows),
                           record.assignment().weights(),
                           record.weights_on_input()};
    }
    if (count != 0)
      bank.forward_rows(ctx, std::as_const(groups).view().subview(0, count));
  }

  template <class Context, class Experts, class T>
  static void forward_permuted(const Context& ctx, const Experts& experts, std::size_t first_expert, std::size_t count,
                               const tape<T>& record, matrix_view<const T> x, matrix_view<T> y) {
    const auto offset = [&](std::size_t e) { return record.plan().offsets()[first_expert + e]; };
    const std::size_t first = offset(0), slots = offset(count) - first;
    matrix<T> rows(&ctx.workspace()), out(&ctx.workspace());
    rows.resize_for_overwrite(slots, x.cols());
    out.resize_for_overwrite(slots, x.cols());
    gather_input(ctx, record, first, x, rows.view());
    buffer<forward_batch<T>> batches(count, &ctx.workspace());
    for (std::size_t e = 0; e < count; ++e) {
      const std::size_t begin = offset(e) - first, size = offset(e + 1) - offset(e);
      batches[e] = {first_expert + e, rows.view().row_block(begin, size), out.view().row_block(begin, size), {}};
    }
    forward_experts(ctx, experts, std::as_const(batches).view());
    for (std::size_t e = 0; e < count; ++e)
      for_each_row(ctx, offset(e + 1) - offset(e), [&](std::size_t i) { // a token comes once per expert
        const std::size_t slot = offset(e) + i;
        add_scaled(ctx.backend(), record.weights_on_input() ? T(1) : slot_weight(record, slot),
                   std::as_const(out).row(slot - first), y.row(record.plan().tokens()[slot]));
      });
  }
};

} // namespace hmoe::dispatch
