// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/batch_layout.hpp>
#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/backends/simd/ffn_kind.hpp>
#include <hmoe/backends/simd/ffn_work.hpp>
#include <hmoe/backends/simd/packed_product.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace hmoe::backends {

/// What the gradients of weights begin with: what the bank of gradients has, which sums are added to; or zero, and then
/// those of the experts that have rows are written, whatever was there. Gradients of other experts stay as they are.
enum class sums_from { gradients, zero };

} // namespace hmoe::backends

namespace hmoe::backends::simd_detail {

/// The backward pass of all feed-forward experts of a bank, in four phases, each shared among the workers:
///   1  dy ─ pack ─▶ rows;  activated values ─ pack ─▶ columns
///   2  rows · W_out ─ derivative ─▶ dz                  piece: some hidden values of a chunk
///      dyᵀ · columns ─ add ─▶ gradient of W_out         piece: some rows of the gradient
///   3  dz ─ pack ─▶ rows;  x ─ pack ─▶ columns
///   4  rows · W_in ─▶ dx                                piece: some columns of a chunk
///      dzᵀ · columns ─ add ─▶ gradient of W_in          piece: some rows of the gradient
/// Rows that scatter: phase 1 makes ∂L/∂out of dy and the weights, for a chunk at a time; x is gathered while phase 3
/// packs it; and a piece of dx is some columns of all chunks, in order of experts, which it adds to the tokens.
/// No two workers write the same value, and each is one sum over ascending rows or columns: the bits of gradients do
/// not depend on the number of workers. Of an expert one chunk at a time is in work, in the order of its rows.
/// What has no memory, dx or tensors of the gradients, is not computed, nor what only they need; the bits of the others
/// stay.
template <class Bank, class Arch> class ffn_backward {
  using T = typename Bank::value_type;
  using kind = ffn_kind<Bank>;
  using work = ffn_work<T, Arch>;
  static constexpr std::size_t lanes = kind::lanes;

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> all_rows, Bank& gradients,
                  sums_from from = sums_from::gradients, const work_sizes& sizes = plain_work_sizes) {
    simd_detail::for_each_batch<T>(
        ctx, all_rows, [&](const expert_rows<T>& r) { return values_of(bank, r.expert, r.scatters()); },
        same_expert::in_turn, sizes,
        [&](vector_view<const chunk<T>> chunks, T* memory) {
          run_phases(ctx, bank, chunks, memory, gradients, from, sizes);
        });
  }

  /// Takes from a dry workspace what `run` takes at most for rows within the limits.
  template <execution_context Context>
  static void lay_out(const Context& dry, const Bank& bank, const row_limits& limits,
                      const work_sizes& sizes = plain_work_sizes) {
    simd_detail::lay_out_batches<T, T>(
        dry, bank.size(), [&](std::size_t e) { return values_of(bank, e, limits.scatters); }, limits,
        same_expert::in_turn, kinds, sizes);
  }

private:
  static constexpr std::size_t kinds = 2; ///< of work in a phase

  /// Packed columns, at first of activated values and then of x.
  static std::size_t columns_per_row(const Bank& bank, std::size_t e) noexcept {
    return work::columns_form::size(std::max(bank.d_model(), bank.width(e)), 1);
  }
  /// What a chunk has in memory: packed columns, dz, ∂L/∂out and then ∂L/∂x where rows scatter, and behind them packed
  /// rows, at first of ∂L/∂out and then of dz.
  static chunk_values values_of(const Bank& bank, std::size_t e, bool scatters) noexcept {
    const std::size_t dz = lanes * bank.width(e);
    return {columns_per_row(bank, e) + dz + (scatters ? bank.d_model() : 0),
            work::rows_form::size(1, std::max(bank.d_model(), dz)), tile_for<Arch>.rows};
  }
  /// A chunk and its memory.
  struct part {
    const expert_rows<T>& all;
    std::size_t expert, width, count;
    bool first;
    T* columns;
    matrix_view<T> dz, d_rows;
    T* rows;

    part(const Bank& bank, const chunk<T>& c, T* memory)
        : all(c.rows), expert(all.expert), width(bank.width(expert)), count(all.count), first(c.first),
          columns(memory + c.memory), dz(columns + count * columns_per_row(bank, expert), count, lanes * width),
          d_rows(columns + count * columns_per_row(bank, expert) + dz.size(), count, bank.d_model()),
          rows(columns + count * values_of(bank, expert, all.scatters()).per_row) {}
    [[nodiscard]] matrix_view<const T> dy() const noexcept { return all.scatters() ? d_rows : all.dy; }
    [[nodiscard]] matrix_view<const T> activated() const noexcept {
      return all.saved.column_block(lanes * width, width);
    }
  };

  /// What of a chunk is to be computed.
  struct wanted {
    bool dx, output, input; ///< the gradients of the two matrices or of their biases

    wanted(const chunk<T>& c, const Bank& gradients) : dx(c.rows.dx.data() != nullptr), output(false), input(false) {
      const auto& to = gradients.weights();
      const std::size_t e = c.rows.expert;
      output = to.output(e).data() != nullptr || to.output_bias(e).data() != nullptr;
      for (std::size_t l = 0; l < lanes; ++l)
        input = input || to.lane(e, l).data() != nullptr || to.lane_bias(e, l).data() != nullptr;
    }
    [[nodiscard]] bool dz() const noexcept { return dx || input; }
  };
  [[nodiscard]] static divisible_work only_if(bool needed, const divisible_work& w) noexcept {
    return needed ? w : divisible_work{0, 0};
  }

  template <execution_context Context>
  static void run_phases(const Context& ctx, const Bank& bank, vector_view<const chunk<T>> chunks, T* memory,
                         Bank& gradients, sums_from from, const work_sizes& sizes) {
    const std::size_t d = bank.d_model();
    auto& sums = gradients.weights();
    const auto resumes = [from](const part& c) { return from == sums_from::gradients || !c.first; };
    // One kind of work for rows, one for columns.
    using enum probes::stage;
    constexpr auto backward = probes::direction::backward;
    const auto phase = [&](const auto& work_of, const auto& for_rows, const auto& for_columns, const auto&... told) {
      simd_detail::run_phase(
          ctx, chunks, sizes,
          [&](const chunk<T>& c) -> std::array<divisible_work, kinds> {
            return work_of(c.rows.count, bank.width(c.rows.expert), wanted(c, gradients));
          },
          [&](const chunk<T>& c, const work_piece& w, std::size_t worker) {
            const part p(bank, c, memory);
            w.kind == 0 ? for_rows(p, w, worker) : for_columns(p, w, worker);
          },
          told...);
    };
    phase(
        [&](std::size_t rows, std::size_t h, const wanted& some) {
          return std::array{only_if(some.dz() || some.output, work::rows_to_pack(rows, d)),
                            only_if(some.output, work::columns_to_pack(rows, h))};
        },
        [&](const part& c, const work_piece& w, std::size_t) {
          if (c.all.scatters()) {
            const block_range some = work::rows_of(w, c.count);
            for (std::size_t r = some.first; r < some.first + some.count; ++r)
              rows::copy_scaled(ctx.backend(), c.all.output_weight(r), c.all.dy.row(c.all.tokens[r]), c.d_rows.row(r));
          }
          work::pack_rows(c.dy(), w, c.rows);
        },
        [](const part& c, const work_piece& w, std::size_t) { work::pack_columns(c.activated(), w, c.columns); },
        [&](const chunk<T>& c, const work_piece& w) {
          return w.kind == 0 ? work::gathering(c.rows.scatters() ? gather : down, backward, c, d, w)
                             : work::packing(down, backward, c, bank.width(c.rows.expert), w);
        });
    phase(
        [&](std::size_t rows, std::size_t h, const wanted& some) {
          return std::array{only_if(some.dz(), work::columns_to_compute(rows, d, h)),
                            only_if(some.output, work::gradient_to_add(rows, d, h))};
        },
        [&](const part& c, const work_piece& w, std::size_t worker) { hidden_gradient(ctx, worker, bank, c, w); },
        [&](const part& c, const work_piece& w, [[maybe_unused]] std::size_t worker) {
          [[maybe_unused]] probes::watch<Context> watched;
          if constexpr (probes::observed<Context>)
            watched.begin(ctx,
                          work::gradient(down, c.expert, c.count, c.width, work::gradient_rows_of(w, d)).by(worker));
          work::template add_gradient<1>(resumes(c), c.dy(), c.columns, w, {sums.output(c.expert)},
                                         {sums.output_bias(c.expert)});
        });
    phase(
        [&](std::size_t rows, std::size_t h, const wanted& some) {
          return std::array{only_if(some.dx, work::rows_to_pack(rows, lanes * h)),
                            only_if(some.input, work::columns_to_pack(rows, d))};
        },
        [](const part& c, const work_piece& w, std::size_t) { work::pack_rows(c.dz, w, c.rows); },
        [](const part& c, const work_piece& w, std::size_t) {
          if (c.all.tokens.empty())
            work::pack_columns(c.all.x, w, c.columns);
          else
            work::pack_source_columns(c.all, w, c.columns);
        },
        [&](const chunk<T>& c, const work_piece& w) {
          return work::packing(gate_up, backward, c, w.kind == 0 ? lanes * bank.width(c.rows.expert) : d, w);
        });
    const auto add_to_gradient = [&](const part& c, const work_piece& w, [[maybe_unused]] std::size_t worker) {
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx,
                      work::gradient(gate_up, c.expert, c.count, d, work::gradient_rows_of(w, c.dz.cols())).by(worker));
      std::array<matrix_view<T>, lanes> gradient, bias_gradient;
      for (std::size_t l = 0; l < lanes; ++l) {
        gradient[l] = sums.lane(c.expert, l);
        bias_gradient[l] = sums.lane_bias(c.expert, l);
      }
      work::template add_gradient<lanes>(resumes(c), c.dz, c.columns, w, gradient, bias_gradient);
    };
    if (!chunks[0].rows.scatters())
      return phase(
          [&](std::size_t rows, std::size_t h, const wanted& some) {
            return std::array{only_if(some.dx, work::columns_to_compute(rows, lanes * h, d)),
                              only_if(some.input, work::gradient_to_add(rows, lanes * h, d))};
          },
          [&](const part& c, const work_piece& w, [[maybe_unused]] std::size_t worker) {
            const block_range columns = work::columns_of(w, c.count, d);
            [[maybe_unused]] probes::watch<Context> watched;
            if constexpr (probes::observed<Context>)
              watched.begin(ctx,
                            work::product(gate_up, backward, c.expert, c.count, c.dz.cols(), 1, columns).by(worker));
            input_gradient(bank, c, columns, c.all.dx);
          },
          add_to_gradient);
    std::size_t most_rows = 0;
    double cost = 0;
    for (const chunk<T>& c : chunks) {
      most_rows = std::max(most_rows, c.rows.count);
      cost += work::rows_and_depth(c.rows.count, lanes * bank.width(c.rows.expert));
    }
    simd_detail::run_phase(
        ctx, chunks, sizes,
        [&](const chunk<T>& c) -> std::array<divisible_work, kinds> {
          const wanted some(c, gradients);
          return {only_if(some.dx && &c == &chunks[0], work::shared_columns(most_rows, cost, d)),
                  only_if(some.input, work::gradient_to_add(c.rows.count, lanes * bank.width(c.rows.expert), d))};
        },
        [&](const chunk<T>& own, const work_piece& w, std::size_t worker) {
          if (w.kind == 1)
            return add_to_gradient(part(bank, own, memory), w, worker);
          const block_range columns = work::columns_of(w, most_rows, d);
          for (const chunk<T>& c : chunks) {
            const part p(bank, c, memory);
            [[maybe_unused]] probes::watch<Context> watched;
            if constexpr (probes::observed<Context>)
              watched.begin(ctx,
                            work::product(gate_up, backward, p.expert, p.count, p.dz.cols(), 1, columns).by(worker));
            input_gradient(bank, p, columns, p.d_rows);
            for (std::size_t r = 0; r < p.count; ++r)
              rows::add_scaled(ctx.backend(), T(1),
                               vector_view<const T>(p.d_rows.row(r).subview(columns.first, columns.count)),
                               p.all.dx.row(p.all.tokens[r]).subview(columns.first, columns.count));
          }
        });
  }

  template <execution_context Context>
  static void hidden_gradient(const Context& ctx, [[maybe_unused]] std::size_t worker, const Bank& bank, const part& c,
                              const work_piece& w) {
    const block_range columns = work::columns_of(w, c.count, c.width);
    multiply_by_output(ctx, worker, bank, c, columns);
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context>)
      watched.begin(
          ctx, work::activation(probes::direction::backward, c.expert, c.count, 2 * lanes + 1, columns).by(worker));
    for (std::size_t r = 0; r < c.count; ++r)
      kind::activate_backward(ctx.backend(), bank, c.all.saved.row(r), c.dz.row(r), c.width, columns.first,
                              columns.count);
  }
  template <execution_context Context>
  static void multiply_by_output([[maybe_unused]] const Context& ctx, [[maybe_unused]] std::size_t worker,
                                 const Bank& bank, const part& c, block_range columns) noexcept {
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context>)
      watched.begin(ctx, work::product(probes::stage::down, probes::direction::backward, c.expert, c.count,
                                       bank.d_model(), 1, columns)
                             .by(worker));
    const auto [j, count] = columns;
    multiply_packed_rows<layout::plain, Arch, T>(c.rows, bank.weights().output(c.expert).column_block(j, count),
                                                 c.dz.column_block((lanes - 1) * c.width + j, count));
  }
  static void input_gradient(const Bank& bank, const part& c, const block_range& some, matrix_view<T> to) noexcept {
    const auto [j, count] = some;
    std::array<matrix_view<const T>, lanes> input;
    for (std::size_t l = 0; l < lanes; ++l)
      input[l] = bank.weights().lane(c.expert, l).column_block(j, count);
    multiply_packed_rows<Arch, T, lanes>(c.rows, input, to.column_block(j, count));
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
