// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/dispatch/row_group.hpp>
#include <hmoe/dispatch/split_products.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <utility>

namespace hmoe::dispatch {

/// Rows of one expert: y = expert(x). `saved` is where forward leaves what backward needs, [rows × saved_per_row], or
/// empty when nothing is to be kept.
template <class T> struct forward_batch {
  std::size_t expert;
  matrix_view<const T> x;
  matrix_view<T> y;
  matrix_view<T> saved;
};

/// The same rows on the way back: dx = ∂L/∂x from dy = ∂L/∂y.
template <class T> struct backward_batch {
  std::size_t expert;
  matrix_view<const T> x;
  matrix_view<const T> saved;
  matrix_view<const T> dy;
  matrix_view<T> dx;
};

/// Rows that one forward task computes. A multiple of every kernel's row block, and large enough that reading an
/// expert's weights again for each task costs little.
inline constexpr std::size_t rows_per_tile = 128;

/// Whether the backend computes all experts of a bank at once: the batches of experts [first, first + bank.size()),
/// with what the workspace has for it (bank_memory).
template <class Context, class Bank>
concept computes_bank = requires(const Context& ctx, const Bank& bank, Bank& gradients, std::size_t first,
                                 vector_view<const forward_batch<typename Bank::value_type>> forward,
                                 vector_view<const backward_batch<typename Bank::value_type>> backward) {
  { ctx.backend().takes_bank(bank) } -> std::convertible_to<bool>;
  ctx.backend().forward_bank(ctx, bank, first, forward);
  ctx.backend().backward_bank(ctx, bank, first, backward, gradients);
};
template <class Context, class Bank> [[nodiscard]] bool backend_takes(const Context& ctx, const Bank& bank) {
  if constexpr (computes_bank<Context, Bank>)
    return ctx.backend().takes_bank(bank);
  else
    return false;
}
/// Whether expert e is in a bank that the backend computes at once.
template <class Context, class Experts>
[[nodiscard]] bool backend_computes(const Context& ctx, const Experts& experts, std::size_t e) {
  bool found = false;
  experts.for_each_bank([&](const auto& bank, std::size_t first) {
    found = found || (e >= first && e - first < bank.size() && backend_takes(ctx, bank));
  });
  return found;
}

/// What forward_bank and backward_bank may take from the workspace: they cut their rows into chunks and take as many
/// chunks at a time as the budget has room for.
struct bank_memory {
  static constexpr std::size_t budget = 16U << 20U; ///< bytes of the chunks at a time, where that is more than one
  static constexpr std::size_t least_rows = 256;    ///< of a chunk, whatever the budget
  static constexpr std::size_t slack = 16;          ///< rows that a chunk may count beyond its own: room to round up
  static constexpr std::size_t list_bytes = 256;    ///< of a chunk's entries in lists of work, of which
  static constexpr std::size_t list_entries = 256;  ///< there may be so many besides

  /// Of a row of expert e.
  template <class Experts> [[nodiscard]] static std::size_t row_bytes(const Experts& experts, std::size_t e) {
    return (experts.saved_per_row(e) + 3 * (experts.scratch_per_row(e) + experts.d_model() + experts.width(e)) +
            memory_alignment) *
           sizeof(typename Experts::value_type);
  }
  /// Of `rows` rows of any experts in all.
  template <class Experts> [[nodiscard]] static std::size_t bytes(const Experts& experts, std::size_t rows) {
    std::size_t longest = 0;
    for (std::size_t e = 0; e < experts.size(); ++e)
      longest = std::max(longest, row_bytes(experts, e));
    const std::size_t all = (rows + slack * std::min(rows, experts.size())) * longest;
    const std::size_t chunks = rows / least_rows + std::min(rows, experts.size());
    return std::min(all, std::max(budget, least_rows * longest) + slack * longest) +
           (chunks + list_entries) * list_bytes;
  }
};

/// Runs a bank that computes several experts at once itself, or that the backend computes so; other banks are left to
/// the caller.
template <class Context, class Bank, class T>
void forward_group(const Context& ctx, const Bank& bank, std::size_t first,
                   vector_view<const forward_batch<T>> batches) {
  if constexpr (requires(vector_view<const row_group<T>> groups) { bank.forward_rows(ctx, groups); }) {
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<row_group<T>> groups(batches.size(), &ctx.workspace());
    std::size_t count = 0;
    for (const auto& batch : batches)
      if (batch.expert >= first && batch.expert - first < bank.size() && batch.x.rows() != 0)
        groups[count++] = {batch.expert - first, batch.x.rows(), batch.x, batch.y};
    if (count != 0)
      bank.forward_rows(ctx, std::as_const(groups).view().subview(0, count));
  } else if constexpr (computes_bank<Context, Bank>) {
    const typename Context::workspace_scope scope(ctx.workspace());
    if (backend_takes(ctx, bank))
      ctx.backend().forward_bank(ctx, bank, first, batches);
  } else {
    static_assert(
        requires(matrix_view<const T> in, matrix_view<T> out) { bank.forward(ctx.backend(), first, in, out, out); },
        "hmoe: a bank of this set computes neither one expert nor several: give it forward_rows(ctx, "
        "vector_view<const dispatch::row_group<T>>) const (see hmoe/dispatch/row_group.hpp)");
  }
}
/// The way back of banks that the backend computes at once.
template <class Context, class Bank, class T>
void backward_group(const Context& ctx, const Bank& bank, std::size_t first,
                    vector_view<const backward_batch<T>> batches, Bank& gradients) {
  if constexpr (computes_bank<Context, Bank>) {
    const typename Context::workspace_scope scope(ctx.workspace());
    if (backend_takes(ctx, bank))
      ctx.backend().backward_bank(ctx, bank, first, batches, gradients);
  }
}

/// Runs experts over batches (in ascending order of experts), the grouped primitive that every dispatch strategy is
/// written in. Banks that compute several experts at once, or that the backend computes so, get all their batches; for
/// the others rows are independent, so large batches are cut into tiles. A backend that runs all batches at once better
/// overloads forward_experts; one that does so with some kinds of experts, forward_bank and backward_bank.
template <class Context, class Experts, class T>
void forward_experts(const Context& ctx, const Experts& experts, vector_view<const forward_batch<T>> batches) {
  if constexpr (requires { ctx.backend().forward_experts(ctx, experts, batches); }) {
    ctx.backend().forward_experts(ctx, experts, batches);
  } else {
    experts.for_each_bank([&](const auto& bank, std::size_t first) { forward_group(ctx, bank, first, batches); });
    struct tile {
      std::size_t batch, first;
    };
    const auto rows_of = [&](const forward_batch<T>& batch) {
      return experts.computes_groups(batch.expert) || backend_computes(ctx, experts, batch.expert) ? 0 : batch.x.rows();
    };
    std::size_t count = 0, scratch_per_row = 0;
    for (const auto& batch : batches) {
      count += (rows_of(batch) + rows_per_tile - 1) / rows_per_tile;
      if (batch.saved.data() == nullptr && rows_of(batch) != 0)
        scratch_per_row = std::max(scratch_per_row, experts.saved_per_row(batch.expert));
    }
    buffer<tile> tiles(count, &ctx.workspace());
    std::size_t next = 0;
    for (std::size_t b = 0; b < batches.size(); ++b)
      for (std::size_t first = 0; first < rows_of(batches[b]); first += rows_per_tile)
        tiles[next++] = {b, first};
    const std::size_t scratch_size = rows_per_tile * scratch_per_row;
    buffer<T> scratch(ctx.executor().concurrency() * scratch_size, &ctx.workspace());
    ctx.executor().for_each(count, [&](std::size_t task, std::size_t worker) {
      const auto& batch = batches[tiles[task].batch];
      const std::size_t first = tiles[task].first, rows = std::min(rows_per_tile, batch.x.rows() - first);
      const matrix_view<T> saved =
          batch.saved.data() != nullptr
              ? batch.saved.row_block(first, rows)
              : matrix_view<T>(scratch.data() + worker * scratch_size, rows, experts.saved_per_row(batch.expert));
      experts.forward(ctx.backend(), batch.expert, batch.x.row_block(first, rows), batch.y.row_block(first, rows),
                      saved);
    });
  }
}

/// The way back. Gradients of an expert sum over all rows of its batch in order, so a batch is one task; batches are
/// started in descending order of cost, which keeps the threads evenly loaded when experts are unequal. Where one batch
/// has more than a quarter of the work (all tokens on one expert, a dense layer), the batches go one after the other
/// and the threads share the products of each.
template <class Context, class Experts, class T>
void backward_experts(const Context& ctx, const Experts& experts, vector_view<const backward_batch<T>> batches,
                      Experts& gradients) {
  if constexpr (requires { ctx.backend().backward_experts(ctx, experts, batches, gradients); }) {
    ctx.backend().backward_experts(ctx, experts, batches, gradients);
  } else {
    experts.for_each_bank_with(gradients, [&](const auto& bank, std::size_t first, auto& bank_gradients) {
      backward_group(ctx, bank, first, batches, bank_gradients);
    });
    const auto rows_of = [&](std::size_t b) {
      return backend_computes(ctx, experts, batches[b].expert) ? 0 : batches[b].x.rows();
    };
    const auto cost = [&](std::size_t b) {
      return static_cast<double>(rows_of(b)) * experts.flops_per_row(batches[b].expert);
    };
    buffer<std::size_t> order(batches.size(), &ctx.workspace()), scratch_offsets(batches.size(), &ctx.workspace());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return cost(a) != cost(b) ? cost(a) > cost(b) : a < b; });
    std::size_t scratch_size = 0;
    for (std::size_t b = 0; b < batches.size(); ++b) {
      scratch_offsets[b] = scratch_size;
      scratch_size += rows_of(b) * experts.scratch_per_row(batches[b].expert);
    }
    buffer<T> scratch(scratch_size, &ctx.workspace());
    const auto run = [&](const auto& math, std::size_t b) {
      const auto& batch = batches[b];
      const matrix_view<T> mine(scratch.data() + scratch_offsets[b], batch.x.rows(),
                                experts.scratch_per_row(batch.expert));
      if (rows_of(b) != 0)
        experts.backward(math, batch.expert, batch.x, batch.saved, batch.dy, batch.dx, mine, gradients);
    };
    double total = 0;
    for (std::size_t b = 0; b < batches.size(); ++b)
      total += cost(b);
    if constexpr (can_split_products<Context>) {
      if (!batches.empty() && cost(order[0]) > total / 4) {
        const split_products math(ctx.backend(), ctx.executor());
        for (std::size_t b = 0; b < batches.size(); ++b)
          run(math, b);
        return;
      }
    }
    ctx.executor().for_each(batches.size(), [&](std::size_t task, std::size_t) { run(ctx.backend(), order[task]); });
  }
}

} // namespace hmoe::dispatch
