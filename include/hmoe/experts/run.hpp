// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/execution/operations.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/experts/bank.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>

/// The only place that decides who computes the rows of an expert, and the forward pass; run_backward.hpp has the
/// other. expert_set::forward_rows and backward_rows come here. Beside each pass stands its lay_out function, which
/// takes the same memory from a workspace that only counts (hmoe::dry_run), for all rows that the limits allow.
namespace hmoe::experts {

/// Who computes the rows of a bank.
enum class runner {
  backend, ///< the backend, all experts of the bank at once (forward_bank, backward_bank)
  bank,    ///< the bank itself, all of its experts at once (forward_rows)
  tiles    ///< the bank, expert by expert and tile by tile (forward, backward)
};

/// Rows that one forward task of `tiles` computes. A multiple of every kernel's row block, and large enough that
/// reading an expert's weights again for each task costs little.
inline constexpr std::size_t rows_per_tile = 128;

namespace detail {
struct name_of_forward_rows {
  void forward_rows();
};
template <class Bank> struct with_forward_rows : Bank, name_of_forward_rows {};

/// Whether the bank has forward_rows; a compile error where it has one that does not fit, or no way at all.
template <execution_context Context, class Bank> [[nodiscard]] consteval bool bank_has_forward_rows() {
  using T = typename Bank::value_type;
  constexpr bool has = requires(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> rows) {
    { bank.forward_rows(ctx, rows) } -> std::same_as<void>;
  };
  constexpr bool named = [] {
    if constexpr (std::is_final_v<Bank>)
      return has;
    else
      return !requires { &with_forward_rows<Bank>::forward_rows; };
  }();
  static_assert(has || !named, "hmoe: a bank's forward_rows does not fit: expected is `template <class Context> void "
                               "forward_rows(const Context& ctx, vector_view<const expert_rows<T>> rows) const` "
                               "(hmoe/experts/bank.hpp)");
  constexpr bool has_forward =
      requires(const Context& ctx, const Bank& bank, matrix_view<const T> in, matrix_view<T> out) {
        bank.forward(ctx.backend(), std::size_t{}, in, out, out);
      };
  static_assert(has || has_forward || named,
                "hmoe: a bank of this set computes neither one expert nor several: give it forward_rows(ctx, "
                "vector_view<const expert_rows<T>>) const (hmoe/experts/bank.hpp)");
  return has;
}
} // namespace detail

/// Who computes the forward pass of this bank in this context, and its backward pass where that is asked.
template <execution_context Context, class Bank>
[[nodiscard]] runner forward_runner(const Context& ctx, const Bank& bank) {
  constexpr bool own = detail::bank_has_forward_rows<Context, Bank>();
  if constexpr (operations::bank_passes<Context, Bank>())
    if (ctx.backend().takes_bank(bank))
      return runner::backend;
  return own ? runner::bank : runner::tiles;
}
template <execution_context Context, class Bank>
[[nodiscard]] runner backward_runner(const Context& ctx, const Bank& bank) {
  if constexpr (operations::bank_passes<Context, Bank>())
    if (ctx.backend().takes_bank(bank))
      return runner::backend;
  return runner::tiles;
}

/// Whether the backend computes the bank, forward and backward, on tokens where they are (operations::gathers).
template <execution_context Context, class Bank>
[[nodiscard]] bool backend_gathers(const Context& ctx, const Bank& bank) {
  if constexpr (operations::bank_passes<Context, Bank>())
    if constexpr (operations::gathers<typename Context::backend_type, Bank>())
      return experts::forward_runner(ctx, bank) == runner::backend && ctx.backend().gathers(bank);
  return false;
}
/// Whether whoever computes the bank forward reads tokens where they are and adds to them, as banks with forward_rows
/// do, too; else rows are gathered first.
template <execution_context Context, class Bank>
[[nodiscard]] bool scatters_itself(const Context& ctx, const Bank& bank) {
  return experts::forward_runner(ctx, bank) == runner::bank || experts::backend_gathers(ctx, bank);
}

/// The event of an expert as a whole, for banks that do not tell their stages. Backward costs twice as much again.
template <class Bank>
[[nodiscard]] probes::event whole_expert(const Bank& bank, std::size_t e, std::size_t rows,
                                         probes::direction direction) noexcept {
  const double n = static_cast<double>(rows), passes = direction == probes::direction::forward ? 1 : 2;
  const double values = 2 * n * static_cast<double>(bank.d_model()) + static_cast<double>(bank.parameter_count(e));
  return {probes::stage::expert,
          direction,
          rows,
          passes * values * sizeof(typename Bank::value_type),
          passes * n * bank.flops_per_row(e),
          e};
}

namespace detail {

/// The same for the rows of several experts.
template <class Bank, class T>
[[nodiscard]] probes::event whole_experts(const Bank& bank, vector_view<const expert_rows<T>> local,
                                          probes::direction direction) noexcept {
  probes::event all{probes::stage::expert, direction};
  for (const expert_rows<T>& r : local) {
    const probes::event one = experts::whole_expert(bank, r.expert, r.count, direction);
    all.rows += one.rows;
    all.bytes += one.bytes;
    all.flops += one.flops;
  }
  all.expert = local.size() == 1 ? local[0].expert : probes::no_expert;
  return all;
}

/// The rows of bank b under its own ids, without those that are empty: f(rows) unless there are none.
template <execution_context Context, class Experts, class T, class F>
void with_rows_of_bank(const Context& ctx, const Experts& experts, std::size_t b,
                       vector_view<const expert_rows<T>> rows, F&& f) {
  const auto of_bank = [&](const expert_rows<T>& r) { return r.count != 0 && experts.bank_index(r.expert) == b; };
  const auto count = static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), of_bank));
  if (count == 0)
    return;
  const typename Context::workspace_scope scope(ctx.workspace());
  buffer<expert_rows<T>> local(count, &ctx.workspace());
  std::size_t next = 0;
  for (const expert_rows<T>& r : rows)
    if (of_bank(r)) {
      local[next] = r;
      local[next++].expert = experts.local_id(r.expert);
    }
  f(std::as_const(local).view());
}
/// f(limits of the bank's rows).
template <class T, execution_context Context, class Bank, class F>
void lay_out_bank(const Context& dry, const Bank& bank, const row_limits& limits, F&& f) {
  const typename Context::workspace_scope scope(dry.workspace());
  const buffer<expert_rows<T>> local(limits.entries(bank.size()), &dry.workspace());
  f(row_limits{std::min(limits.total, limits.each * bank.size()), limits.each, limits.block, limits.scatters,
               limits.keeps});
}

/// Rows [first, first + rows_per_tile) of an entry of a list.
struct tile {
  std::size_t rows, first;
};
template <class T> struct tile_memory {
  tile_memory(std::pmr::memory_resource* memory, std::size_t tile_count, std::size_t workers,
              std::size_t scratch_per_worker)
      : tiles(tile_count, memory), scratch_size(scratch_per_worker), scratch(workers * scratch_per_worker, memory) {}

  buffer<tile> tiles;
  std::size_t scratch_size; ///< of a worker
  buffer<T> scratch;
};

/// Experts whose rows are contiguous, expert by expert: rows are independent, so many of them are cut into tiles.
template <execution_context Context, class Experts, class T>
void forward_tiles(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows) {
  std::size_t count = 0, scratch_size = 0;
  for (const expert_rows<T>& r : rows) {
    count += blocks_of(r.count, rows_per_tile);
    if (!r.keeps())
      scratch_size = std::max(scratch_size, std::min(r.count, rows_per_tile) * experts.saved_per_row(r.expert));
  }
  tile_memory<T> memory(&ctx.workspace(), count, ctx.executor().concurrency(), scratch_size);
  std::size_t next = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t first = 0; first < rows[i].count; first += rows_per_tile)
      memory.tiles[next++] = {i, first};
  ctx.executor().for_each(count, [&](std::size_t task, std::size_t worker) {
    const expert_rows<T>& all = rows[memory.tiles[task].rows];
    const block_range tile_rows = block_at(memory.tiles[task].first / rows_per_tile, rows_per_tile, all.count);
    const expert_rows<T> r = all.part(tile_rows.first, tile_rows.count);
    T* own = memory.scratch.data() + worker * memory.scratch_size;
    experts.forward(probes::math_for(ctx, ctx.backend(), r.expert, worker), r.expert, r.x, r.y,
                    r.keeps() ? r.saved : matrix_view<T>(own, r.count, experts.saved_per_row(r.expert)));
  });
}
/// `by_tiles(e)`: whether expert e is run tile by tile.
template <class T, execution_context Context, class Experts, class ByTiles>
void lay_out_tiles(const Context& dry, const Experts& experts, const row_limits& limits, const ByTiles& by_tiles) {
  std::size_t count = 0, widest = 0;
  for (std::size_t e = 0; e < experts.size(); ++e)
    if (by_tiles(e)) {
      ++count;
      widest = std::max(widest, experts.saved_per_row(e));
    }
  if (count == 0)
    return;
  const std::size_t block = limits.block == 0 ? rows_per_tile : std::min(limits.block, rows_per_tile);
  const tile_memory<T> memory(&dry.workspace(), limits.pieces(count, rows_per_tile), dry.executor().concurrency(),
                              limits.keeps ? 0 : std::min(limits.each, block) * widest);
}

/// Those rows of a list that are run tile by tile, collected while the others are run.
template <class T> class remaining_rows {
public:
  remaining_rows(std::size_t most, std::pmr::memory_resource* memory) : rows_(most, memory) {}
  template <class Experts>
  void add_bank(const Experts& experts, std::size_t b, vector_view<const expert_rows<T>> rows) noexcept {
    for (const expert_rows<T>& r : rows)
      if (r.count != 0 && experts.bank_index(r.expert) == b)
        rows_[count_++] = r;
  }
  [[nodiscard]] vector_view<const expert_rows<T>> view() const noexcept { return rows_.view().subview(0, count_); }

private:
  buffer<expert_rows<T>> rows_;
  std::size_t count_ = 0;
};

/// The rows of one bank, under its own ids, by the backend or by the bank itself.
template <execution_context Context, class Bank, class T>
void forward_bank(const Context& ctx, const Bank& bank, runner who, vector_view<const expert_rows<T>> local) {
  if constexpr (operations::bank_passes<Context, Bank>())
    if (who == runner::backend) {
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context> && !probes::observes_stages<typename Context::backend_type>)
        watched.begin(ctx, detail::whole_experts(bank, local, probes::direction::forward));
      return ctx.backend().forward_bank(ctx, bank, local);
    }
  if constexpr (bank_has_forward_rows<Context, Bank>())
    if (who == runner::bank) {
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context> && !probes::observes_stages<Bank>)
        watched.begin(ctx, detail::whole_experts(bank, local, probes::direction::forward));
      bank.forward_rows(ctx, local);
    }
}
template <execution_context Context, class Bank>
void lay_out_forward_bank(const Context& dry, const Bank& bank, runner who, const row_limits& limits) {
  if constexpr (operations::bank_passes<Context, Bank>())
    if (who == runner::backend)
      return dry.backend().lay_out_forward_bank(dry, bank, limits);
  if constexpr (bank_has_forward_rows<Context, Bank>()) {
    constexpr bool told = requires { bank.lay_out_forward_rows(dry, limits); };
    static_assert(told, "hmoe: a bank of this set has forward_rows, but does not tell what memory that takes: give it "
                        "`template <class Context> void lay_out_forward_rows(const Context& dry, const row_limits& "
                        "limits) const` (hmoe/experts/bank.hpp)");
    if constexpr (told)
      if (who == runner::bank)
        bank.lay_out_forward_rows(dry, limits);
  }
}

template <execution_context Context, class Experts, class T>
void forward_contiguous(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows) {
  const typename Context::workspace_scope scope(ctx.workspace());
  remaining_rows<T> others(rows.size(), &ctx.workspace());
  experts.for_each_bank([&, b = std::size_t{0}](const auto& bank, vector_view<const std::size_t> ids) mutable {
    const std::size_t own = b++;
    const runner who = experts::forward_runner(ctx, bank);
    if (who == runner::tiles)
      return others.add_bank(experts, own, rows);
    detail::with_rows_of_bank(ctx, experts, own, rows, [&](vector_view<const expert_rows<T>> local) {
      detail::forward_bank(probes::placed(ctx, probes::renumbered{ids}), bank, who, local);
    });
  });
  detail::forward_tiles(ctx, experts, others.view());
}

/// `takes_part(who)`: whether banks that are run so may have rows.
template <class T, execution_context Context, class Experts, class TakesPart>
void lay_out_contiguous(const Context& dry, const Experts& experts, const row_limits& limits,
                        const TakesPart& takes_part) {
  const typename Context::workspace_scope scope(dry.workspace());
  const remaining_rows<T> others(limits.entries(experts.size()), &dry.workspace());
  experts.for_each_bank([&](const auto& bank, vector_view<const std::size_t>) {
    if (const runner who = experts::forward_runner(dry, bank); who != runner::tiles && takes_part(who))
      detail::lay_out_bank<T>(dry, bank, limits,
                              [&](const row_limits& own) { detail::lay_out_forward_bank(dry, bank, who, own); });
  });
  detail::lay_out_tiles<T>(dry, experts, limits,
                           [&](std::size_t e) { return experts.runner_of(dry, e) == runner::tiles; });
}

template <class T> struct gathered_memory {
  gathered_memory(std::pmr::memory_resource* memory, std::size_t entries, std::size_t rows, std::size_t d_model)
      : in(matrix<T>::for_overwrite(rows, d_model, memory)), out(matrix<T>::for_overwrite(rows, d_model, memory)),
        contiguous(entries, memory) {}

  matrix<T> in, out;
  buffer<expert_rows<T>> contiguous;
};

/// Gathers the rows of banks that read and write contiguous rows only, computes them, and adds the results to their
/// tokens in ascending order of experts.
template <execution_context Context, class Experts, class T>
void forward_gathered(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows) {
  const typename Context::workspace_scope scope(ctx.workspace());
  std::size_t total = 0;
  for (const expert_rows<T>& r : rows)
    total += r.count;
  if (total == 0)
    return;
  gathered_memory<T> memory(&ctx.workspace(), rows.size(), total, experts.d_model());
  matrix<T>&in = memory.in, &out = memory.out;
  buffer<expert_rows<T>>& contiguous = memory.contiguous;
  const auto row_bytes = static_cast<double>(2 * experts.d_model() * sizeof(T));
  std::size_t first = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const expert_rows<T>& r = rows[i];
    contiguous[i] = expert_rows<T>::forward(r.expert, in.view().row_block(first, r.count),
                                            out.view().row_block(first, r.count), {});
    const matrix_view<T> to = in.view().row_block(first, r.count);
    hmoe::for_each_row(
        ctx, r.count,
        [&](std::size_t row) {
          if (r.weights_on_input)
            rows::copy_scaled(ctx.backend(), r.input_weight(row), r.source(row), to.row(row));
          else
            std::copy(r.source(row).begin(), r.source(row).end(), to.row(row).begin());
        },
        probes::row<Context>(probes::stage::gather, probes::direction::forward, row_bytes, r.expert));
    first += r.count;
  }
  detail::forward_contiguous(ctx, experts, std::as_const(contiguous).view());
  for (std::size_t i = 0; i < rows.size(); ++i)
    hmoe::for_each_row(
        ctx, rows[i].count,
        [&](std::size_t row) { // a token comes once per expert
          rows::add_scaled(ctx.backend(), rows[i].output_weight(row), vector_view<const T>(contiguous[i].y.row(row)),
                           rows[i].y.row(rows[i].tokens[row]));
        },
        probes::row<Context>(probes::stage::combine, probes::direction::forward, 1.5 * row_bytes, rows[i].expert));
}

template <class T, execution_context Context, class Experts>
void lay_out_gathered(const Context& dry, const Experts& experts, const row_limits& limits) {
  const typename Context::workspace_scope scope(dry.workspace());
  const gathered_memory<T> memory(&dry.workspace(), limits.entries(experts.size()), limits.total, experts.d_model());
  detail::lay_out_contiguous<T>(dry, experts, limits, [](runner who) { return who != runner::bank; });
}

/// f(bank index, its rows, whether it scatters them itself) for runs of rows of one bank that does, or of any that do
/// not: where rows scatter, banks take turns as the ids of their experts do, since a token's sum runs in ascending
/// order of experts.
template <execution_context Context, class Experts, class T, class F>
void for_each_turn(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows, const F& f) {
  const auto itself = [&](std::size_t i) { return experts.scatters_itself(ctx, rows[i].expert); };
  for (std::size_t first = 0, last = 0; first < rows.size(); first = last) {
    const bool own = itself(first);
    const std::size_t bank = experts.bank_index(rows[first].expert);
    for (last = first + 1; last < rows.size(); ++last)
      if (own ? experts.bank_index(rows[last].expert) != bank : itself(last))
        break;
    f(bank, rows.subview(first, last - first), own);
  }
}

} // namespace detail

/// y of all rows, and what backward needs where it is to be kept.
template <execution_context Context, class Experts, class T>
void forward_rows(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows) {
  if (rows.empty() || !rows[0].scatters())
    return detail::forward_contiguous(ctx, experts, rows);
  detail::for_each_turn(ctx, experts, rows, [&](std::size_t own, vector_view<const expert_rows<T>> turn, bool itself) {
    if (!itself)
      return detail::forward_gathered(ctx, experts, turn);
    experts.for_each_bank([&, b = std::size_t{0}](const auto& bank, vector_view<const std::size_t> ids) mutable {
      if (b++ == own)
        detail::with_rows_of_bank(ctx, experts, own, turn, [&](vector_view<const expert_rows<T>> local) {
          detail::forward_bank(probes::placed(ctx, probes::renumbered{ids}), bank, experts::forward_runner(ctx, bank),
                               local);
        });
    });
  });
}

/// What forward_rows takes for rows within the limits. `scatters`: the rows add their results to tokens.
template <class T, execution_context Context, class Experts>
void lay_out_forward_rows(const Context& dry, const Experts& experts, const row_limits& limits, bool scatters) {
  if (!scatters)
    return detail::lay_out_contiguous<T>(dry, experts, limits, [](runner) { return true; });
  std::size_t gathered = 0;
  row_limits scattering = limits;
  scattering.scatters = true;
  experts.for_each_bank([&](const auto& bank, vector_view<const std::size_t>) {
    if (!experts::scatters_itself(dry, bank))
      gathered += bank.size();
    else
      detail::lay_out_bank<T>(dry, bank, scattering, [&](const row_limits& own) {
        detail::lay_out_forward_bank(dry, bank, experts::forward_runner(dry, bank), own);
      });
  });
  if (gathered != 0)
    detail::lay_out_gathered<T>(
        dry, experts, {std::min(limits.total, limits.each * gathered), limits.each, limits.block, false, limits.keeps});
}

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
