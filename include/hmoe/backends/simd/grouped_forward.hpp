// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/rows.hpp>
#include <hmoe/backends/simd/tile.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>

/// Experts over the rows they were given, all at once; the groups are all of one kind (expert_rows::scatters). Rows are
/// cut into chunks, chunks are taken in batches whose rows and hidden values fit a budget, and a batch goes through
/// three phases, each shared among the workers:
///   1  rows    x ─ gather, weight, encode ─▶ rows
///   2  hidden  rows · in panels ─ bias, gate, encode ─▶ hidden      work: a few panels of a chunk
///   3  output  hidden · out panels ─ bias, weight, add ─▶ y         work: a panel of a chunk, or, where results are
///              added to tokens, a panel of all chunks in order of experts: no two workers write the same value
///              (two panels where all chunks have few rows)
/// How the work is cut changes no bit: each sum is a chain of its own.
namespace hmoe::backends::simd_detail {

/// How much is in work at a time.
struct schedule {
  std::size_t batch_bytes; ///< encoded rows and hidden values of a batch
  std::size_t least_rows;  ///< of a chunk: fewer would read the weights too often
  std::size_t most_rows;   ///< of a chunk
  std::size_t items;       ///< pieces that phase 2 is cut into at least, where there is enough to do
  std::size_t least_work;  ///< multiply-adds of a piece at least: below, handing it out costs more than it saves
};
/// 8 MB stay in a share of the last-level cache; 96 rows are 8 blocks of 12, at which weights from DRAM keep up.
inline constexpr schedule default_schedule{8U << 20U, 96, 1024, 64, 1U << 17U};

/// A part of a group in work, and where its rows and hidden values are (in row_values).
struct chunk {
  expert_rows<float> group;
  std::size_t rows, hidden;
};
/// Rows (phase 1) or strips (phase 2) [first, first + count) of a chunk.
struct work_item {
  std::size_t chunk, first, count;
};

template <class Bank> class grouped_forward {
  using format = typename Bank::format;
  using arch = typename Bank::arch;
  using row_value = typename format::row_value;
  static constexpr std::size_t n = formats::detail::lanes<arch>;
  static constexpr tile_tuning tuning = tuning_of<format, arch>;
  static constexpr std::size_t panel_columns = 2 * n, block = tuning.rows;
  static constexpr std::size_t hidden_per_panel = Bank::weights_type::hidden_per_panel;
  /// Panels whose hidden values are encoded together.
  static constexpr std::size_t panels_per_strip = std::max<std::size_t>(1, format::encoded_together / hidden_per_panel);
  static constexpr std::size_t strip_width = panels_per_strip * hidden_per_panel;
  static constexpr std::size_t tile_size = std::max(block, 2 * tuning.paired_rows) * panel_columns;
  /// Strips in work together at most.
  static constexpr std::size_t most_strips = tuning.paired_rows > 0 ? 2 : 1;

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<float>> groups,
                  const schedule& plan = default_schedule) {
    const typename Context::workspace_scope scope(ctx.workspace());
    std::size_t chunk_count = 0;
    for (const auto& group : groups)
      chunk_count += chunks_of(bank, group, plan);
    buffer<chunk> chunks(chunk_count, &ctx.workspace());
    std::size_t next = 0;
    for (const auto& group : groups)
      for (std::size_t i = 0, parts = chunks_of(bank, group, plan); i < parts; ++i) {
        const std::size_t first = i * group.count / parts;
        chunks[next++] = {group.part(first, (i + 1) * group.count / parts - first), 0, 0};
      }
    for (std::size_t first = 0; first < chunk_count;) {
      std::size_t last = first, values = 0;
      for (; last < chunk_count; ++last) {
        chunk& c = chunks[last];
        const std::size_t rows = c.group.count * row_length(bank), hidden = c.group.count * hidden_length(bank, c);
        if (last != first && (values + rows + hidden) * sizeof(row_value) > plan.batch_bytes)
          break;
        c.rows = values;
        c.hidden = values + rows;
        values += rows + hidden;
      }
      run_batch(ctx, bank, chunks.view().subview(first, last - first), values, plan);
      first = last;
    }
  }

  /// Bytes of workspace that suffice for `rows` expert rows in all, with at most one group for each expert.
  [[nodiscard]] static std::size_t workspace_bytes(const Bank& bank, std::size_t rows,
                                                   const schedule& plan = default_schedule) noexcept {
    std::size_t longest = 0;
    for (std::size_t e = 0; e < bank.size(); ++e)
      longest = std::max(longest, format::row_length(bank.width(e)));
    const std::size_t row_bytes = (row_length(bank) + longest) * sizeof(row_value);
    const std::size_t chunks = rows / plan.least_rows + bank.size();
    const std::size_t values = std::min(rows * row_bytes, std::max(plan.batch_bytes, plan.least_rows * row_bytes));
    return aligned_bytes<chunk>(chunks) + aligned_bytes<std::byte>(values) +
           aligned_bytes<work_item>(rows / least_rows_per_item + chunks) + // phase 1
           aligned_bytes<work_item>(2 * plan.items + chunks);              // phase 2
  }

private:
  static constexpr std::size_t least_rows_per_item = 32;

  /// Panels streamed side by side: two for few rows, where bandwidth is the limit and two streams get more of it; else
  /// one.
  static constexpr std::size_t panels_together(std::size_t rows) noexcept { return rows <= tuning.paired_rows ? 2 : 1; }
  static std::size_t row_length(const Bank& bank) noexcept { return format::row_length(bank.d_model()); }
  static std::size_t hidden_length(const Bank& bank, const chunk& c) noexcept {
    return format::row_length(bank.width(c.group.expert));
  }
  static std::size_t most_rows(std::size_t row_bytes, const schedule& plan) noexcept {
    return std::clamp(plan.batch_bytes / row_bytes, plan.least_rows, plan.most_rows);
  }
  static std::size_t chunks_of(const Bank& bank, const expert_rows<float>& group, const schedule& plan) noexcept {
    const std::size_t e = group.expert, rows = group.count;
    if (bank.width(e) == 0 && !bank.has_biases() && group.scatters())
      return 0; // adds nothing to any token
    const std::size_t row_bytes = (row_length(bank) + format::row_length(bank.width(e))) * sizeof(row_value);
    const std::size_t most = most_rows(row_bytes, plan);
    return (rows + most - 1) / most;
  }

  template <execution_context Context>
  static void run_batch(const Context& ctx, const Bank& bank, vector_view<const chunk> chunks, std::size_t values,
                        const schedule& plan) {
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<row_value> memory(values, &ctx.workspace());
    const auto run = [&](const buffer<work_item>& items, auto&& f) {
      ctx.executor().for_each(items.size(), [&](std::size_t i, std::size_t) { f(items[i]); });
    };
    run(row_items(ctx, chunks), [&](const work_item& w) { encode_rows(bank, chunks[w.chunk], w, memory.data()); });
    run(hidden_items(ctx, bank, chunks, plan),
        [&](const work_item& w) { compute_hidden(bank, chunks[w.chunk], w, memory.data()); });
    const bool scatters = chunks[0].group.scatters();
    std::size_t per_piece = 2;
    for (const chunk& c : chunks)
      per_piece = std::min(per_piece, panels_together(c.group.count));
    const std::size_t panels = bank.weights().out_panels(), pieces = (panels + per_piece - 1) / per_piece;
    ctx.executor().for_each(scatters ? pieces : pieces * chunks.size(), [&](std::size_t i, std::size_t) {
      const std::size_t first = i % pieces * per_piece, last = std::min(first + per_piece, panels);
      if (!scatters)
        return compute_output(bank, chunks[i / pieces], first, last, chunks[i / pieces], last, memory.data());
      for (std::size_t c = 0; c < chunks.size(); ++c) {
        const bool turns = c + 1 == chunks.size();
        compute_output(bank, chunks[c], first, last, chunks[turns ? 0 : c + 1], turns ? last : first, memory.data());
      }
    });
  }

  template <execution_context Context>
  static buffer<work_item> row_items(const Context& ctx, vector_view<const chunk> chunks) {
    std::size_t count = 0;
    for (const chunk& c : chunks)
      count += (c.group.count + least_rows_per_item - 1) / least_rows_per_item;
    buffer<work_item> items(count, &ctx.workspace());
    std::size_t next = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i)
      for (std::size_t first = 0; first < chunks[i].group.count; first += least_rows_per_item)
        items[next++] = {i, first, std::min(least_rows_per_item, chunks[i].group.count - first)};
    return items;
  }

  /// Pieces of about equal cost. A panel costs its multiply-adds, and as much as a block of rows for reading it.
  template <execution_context Context>
  static buffer<work_item> hidden_items(const Context& ctx, const Bank& bank, vector_view<const chunk> chunks,
                                        const schedule& plan) {
    const auto strips_of = [&](const chunk& c) { return (bank.width(c.group.expert) + strip_width - 1) / strip_width; };
    const auto strip_cost = [&](const chunk& c) {
      return (c.group.count + block) * bank.d_model() * panels_per_strip * panel_columns;
    };
    std::size_t total = 0;
    for (const chunk& c : chunks)
      total += strips_of(c) * strip_cost(c);
    const std::size_t target = std::max(total / plan.items, plan.least_work);
    const auto strips_per_item = [&](const chunk& c) {
      const std::size_t together = panels_together(c.group.count);
      return std::max<std::size_t>(1, target / strip_cost(c) / together) * together;
    };
    std::size_t count = 0;
    for (const chunk& c : chunks)
      count += (strips_of(c) + strips_per_item(c) - 1) / strips_per_item(c);
    buffer<work_item> items(count, &ctx.workspace());
    std::size_t next = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      const std::size_t strips = strips_of(chunks[i]), step = strips_per_item(chunks[i]);
      for (std::size_t first = 0; first < strips; first += step)
        items[next++] = {i, first, std::min(step, strips - first)};
    }
    return items;
  }

  static void encode_rows(const Bank& bank, const chunk& c, const work_item& w, row_value* memory) noexcept {
    const std::size_t d = bank.d_model(), step = row_length(bank);
    constexpr std::size_t part = std::max<std::size_t>(32, format::encoded_together);
    float scaled[part];
    for (std::size_t i = w.first; i < w.first + w.count; ++i) {
      row_value* row = memory + c.rows + i * step;
      const float* from = c.group.source(i).data();
      if (!c.group.weights_on_input) {
        format::template encode<arch>(from, d, row);
        continue;
      }
      const float weight = c.group.input_weight(i);
      for (std::size_t k = 0; k < d; k += part) {
        const std::size_t count = std::min(part, d - k);
        for (std::size_t j = 0; j < count; ++j)
          scaled[j] = weight * from[k + j];
        format::template encode<arch>(scaled, count, row + format::row_offset(k));
      }
    }
  }

  /// Weights that are read by all blocks of a chunk, and those that are read after them.
  struct reading {
    const std::byte *now, *next;
    std::size_t bytes, next_bytes;

    /// For block b of `blocks`: a single one prefetches what it needs soon, several share what is read next.
    [[nodiscard]] formats::detail::read_ahead ahead(std::size_t b, std::size_t blocks,
                                                    std::size_t rows) const noexcept {
      if (blocks == 1)
        return {now + (tuning.ahead + tuning.ahead_per_row * rows) / panels_together(rows), memory_alignment};
      const std::size_t part = std::max<std::size_t>(bytes * blocks, 1); // no bytes: an expert of width 0
      return {next + b * next_bytes / blocks, (memory_alignment * next_bytes + part - 1) / part};
    }
  };
  /// f(first row, rows, what to prefetch) for blocks of nearly equal height: a short last block would run at a fraction
  /// of the speed.
  template <class F> static void for_each_block(std::size_t rows, const reading& weights, F&& f) {
    const std::size_t blocks = (rows + block - 1) / block;
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::size_t first = b * rows / blocks, count = (b + 1) * rows / blocks - first;
      f(first, count, weights.ahead(b, blocks, count));
    }
  }

  /// The sums of one panel, or of two side by side for paired rows.
  static void multiply(std::size_t panels, std::size_t rows, std::size_t depth, const row_value* first,
                       std::size_t step, const std::byte* panel, formats::detail::read_ahead ahead,
                       float* tile) noexcept {
    if constexpr (tuning.paired_rows > 0)
      if (panels == 2)
        return multiply_panels<tuning.paired_rows, 2, format, arch>(rows, depth, first, step, panel, ahead, tile);
    multiply_panels<block, 1, format, arch>(rows, depth, first, step, panel, ahead, tile);
  }

  static void compute_hidden(const Bank& bank, const chunk& c, const work_item& w, row_value* memory) noexcept {
    const std::size_t e = c.group.expert, h = bank.width(e), step = row_length(bank), to_step = hidden_length(bank, c);
    const std::size_t bytes = format::template panel_bytes<arch>(bank.d_model());
    const std::size_t together = panels_together(c.group.count);
    constexpr std::size_t strip_step = most_strips * strip_width;
    alignas(memory_alignment) float tile[tile_size], strip[block * strip_step];
    for (std::size_t s = w.first; s < w.first + w.count; s += together) {
      const std::size_t strips = std::min(together, w.first + w.count - s), first_panel = s * panels_per_strip;
      const std::size_t panels = std::min(strips * panels_per_strip, bank.weights().in_panels(h) - first_panel);
      const std::byte* weights = bank.weights().in_panel(e, first_panel);
      const reading all{weights, weights + panels * bytes, panels * bytes, panels * bytes};
      for_each_block(c.group.count, all, [&](std::size_t first, std::size_t rows, formats::detail::read_ahead ahead) {
        for (std::size_t p = 0; p < panels;) {
          const std::size_t count = std::min(together, panels - p);
          multiply(count, rows, bank.d_model(), memory + c.rows + first * step, step, weights + p * bytes, ahead, tile);
          for (std::size_t i = 0; i < count; ++i, ++p, ahead.from += ahead.step * bytes / memory_alignment)
            bank.finish_hidden(e, first_panel + p, rows, tile + i * rows * panel_columns, strip + p * hidden_per_panel,
                               strip_step);
        }
        const std::size_t k = first_panel * hidden_per_panel;
        for (std::size_t r = 0; r < rows; ++r)
          format::template encode<arch>(strip + r * strip_step, std::min(strips * strip_width, h - k),
                                        memory + c.hidden + (first + r) * to_step + format::row_offset(k));
      });
    }
  }

  /// Panels [panel, last) of chunk c, one, or two where its rows are few; `next`: the panel and the chunk that come
  /// after.
  static void compute_output(const Bank& bank, const chunk& c, std::size_t panel, std::size_t last, const chunk& next,
                             std::size_t next_panel, row_value* memory) noexcept {
    const std::size_t e = c.group.expert, step = hidden_length(bank, c);
    const auto bytes_of = [&](const chunk& of) {
      return format::template panel_bytes<arch>(bank.width(of.group.expert));
    };
    const reading weights{bank.weights().out_panel(e, panel), bank.weights().out_panel(next.group.expert, next_panel),
                          bytes_of(c), bytes_of(next)};
    alignas(memory_alignment) float tile[tile_size];
    for_each_block(c.group.count, weights, [&](std::size_t first, std::size_t rows, formats::detail::read_ahead ahead) {
      prefetch_output(c, panel * panel_columns, std::min(last * panel_columns, bank.d_model()), first, rows);
      multiply(last - panel, rows, bank.width(e), memory + c.hidden + first * step, step, weights.now, ahead, tile);
      for (std::size_t p = panel; p < last; ++p)
        add_output(bank, c, p, first, rows, tile + (p - panel) * rows * panel_columns);
    });
  }
  /// What will be added to is far apart, so it is asked for before the sums are made: 1 to 2 % for 1024 tokens.
  /// Inlined by force, since g++ 12 takes a function that only prefetches for one without effect and drops the call.
  [[gnu::always_inline]] static void prefetch_output(const chunk& c, std::size_t column, std::size_t last,
                                                     std::size_t first, std::size_t rows) noexcept {
    if (!c.group.scatters())
      return;
    constexpr std::size_t line = memory_alignment / sizeof(float);
    for (std::size_t r = first; r < first + rows; ++r)
      for (std::size_t k = column; k < last; k += line)
        __builtin_prefetch(c.group.y.row(c.group.tokens[r]).data() + k, 1);
  }
  static void add_output(const Bank& bank, const chunk& c, std::size_t panel, std::size_t first, std::size_t rows,
                         float* tile) noexcept {
    const std::size_t column = panel * panel_columns, columns = std::min(panel_columns, bank.d_model() - column);
    bank.finish_output(c.group.expert, panel, rows, tile);
    for (std::size_t r = 0; r < rows; ++r, tile += panel_columns)
      if (c.group.scatters())
        row_operations<arch>::template add_scaled<float>(
            c.group.output_weight(first + r), vector_view<const float>(tile, columns),
            c.group.y.row(c.group.tokens[first + r]).subview(column, columns));
      else
        std::copy_n(tile, columns, c.group.y.row(first + r).data() + column);
  }
};

} // namespace hmoe::backends::simd_detail
