// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/backends/simd/rows.hpp>
#include <hmoe/backends/simd/tile.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/probe.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// What a worker does for a chunk in each phase of packed_forward. Rows and hidden values are row_values of the format;
/// a *panel* is 2·n columns of packed weights (n: floats in a register), a *strip* the panels whose hidden values are
/// encoded together.
template <class Bank> class packed_kernels {
  using format = typename Bank::format;
  using arch = typename Bank::arch;

public:
  using row_value = typename format::row_value;
  static constexpr tile_tuning tuning = tuning_of<format, arch>;
  static constexpr std::size_t panel_columns = 2 * formats::detail::lanes<arch>, block = tuning.rows;
  static constexpr std::size_t hidden_per_panel = Bank::weights_type::hidden_per_panel;
  /// Whether hidden values lie in memory as floats until a row has all of them.
  static constexpr bool encodes_rows = formats::detail::encodes_rows<format>;
  static constexpr std::size_t panels_per_strip =
      encodes_rows ? 1 : std::max<std::size_t>(1, format::encoded_together / hidden_per_panel);
  static constexpr std::size_t strip_width = panels_per_strip * hidden_per_panel;

  /// Panels (or strips) streamed side by side: two for few rows, where bandwidth is the limit and two streams get more
  /// of it; else one.
  static constexpr std::size_t panels_together(std::size_t rows) noexcept { return rows <= tuning.paired_rows ? 2 : 1; }

  /// What a chunk of expert e has in memory: its rows, behind them its hidden values, and those as floats where they
  /// wait.
  static chunk_values values_of(const Bank& bank, std::size_t e) noexcept {
    return {row_length(bank) + hidden_length(bank, e) +
                (encodes_rows ? floats_length(bank, e) * sizeof(float) / sizeof(row_value) : 0),
            0, 1};
  }

  /// Rows [some.first, some.first + some.count) of a chunk as the format encodes them.
  static void encode_rows(const Bank& bank, const chunk<float>& c, block_range some, row_value* memory) noexcept {
    const std::size_t d = bank.d_model(), step = row_length(bank);
    row_value* row = rows_of(c, memory) + some.first * step;
    constexpr std::size_t part = std::max<std::size_t>(32, format::encoded_together);
    float scaled[part];
    for (std::size_t i = some.first; i < some.first + some.count; ++i, row += step) {
      const float* from = c.rows.source(i).data();
      if (!c.rows.weights_on_input) {
        format::template encode<arch>(from, d, row);
        continue;
      }
      const float weight = c.rows.input_weight(i);
      if constexpr (encodes_rows) {
        format::template encode<arch>(from, d, row, weight);
        continue;
      }
      for (std::size_t k = 0; k < d; k += part) {
        const std::size_t count = std::min(part, d - k);
        for (std::size_t j = 0; j < count; ++j)
          scaled[j] = weight * from[k + j];
        format::template encode<arch>(scaled, count, row + format::row_offset(k));
      }
    }
  }

  /// Strips [some.first, some.first + some.count) of a chunk's hidden values.
  static void compute_hidden(const Bank& bank, const chunk<float>& c, block_range some, row_value* memory) noexcept {
    const std::size_t e = c.rows.expert, h = bank.width(e), step = row_length(bank), to_step = hidden_length(bank, e);
    const std::size_t bytes = format::template panel_bytes<arch>(bank.d_model());
    const std::size_t together = panels_together(c.rows.count), end = some.first + some.count;
    const row_value* from = rows_of(c, memory);
    row_value* to = hidden_of(bank, c, memory);
    constexpr std::size_t strip_step = most_strips * strip_width;
    alignas(memory_alignment) float tile[tile_size], strip[block * strip_step];
    for (std::size_t s = some.first; s < end; s += together) {
      const std::size_t strips = std::min(together, end - s), first_panel = s * panels_per_strip;
      const std::size_t panels = std::min(strips * panels_per_strip, bank.weights().in_panels(h) - first_panel);
      const std::byte* weights = bank.weights().in_panel(e, first_panel);
      const reading all{weights, weights + panels * bytes, panels * bytes, panels * bytes};
      for_each_block(c.rows.count, all, [&](std::size_t first, std::size_t rows, formats::detail::read_ahead ahead) {
        const std::size_t k = first_panel * hidden_per_panel;
        float* values = strip;
        std::size_t values_step = strip_step;
        if constexpr (encodes_rows) {
          values_step = floats_length(bank, e);
          values = floats_of(bank, c, memory) + first * values_step + k;
        }
        for (std::size_t p = 0; p < panels;) {
          const std::size_t count = std::min(together, panels - p);
          multiply(count, rows, bank.d_model(), from + first * step, step, weights + p * bytes, ahead, tile);
          for (std::size_t i = 0; i < count; ++i, ++p, ahead.from += ahead.step * bytes / memory_alignment)
            bank.finish_hidden(e, first_panel + p, rows, tile + i * rows * panel_columns, values + p * hidden_per_panel,
                               values_step);
        }
        for (std::size_t r = 0; r < rows && !encodes_rows; ++r)
          format::template encode<arch>(strip + r * strip_step, std::min(strips * strip_width, h - k),
                                        to + (first + r) * to_step + format::row_offset(k));
      });
    }
  }
  /// Of formats that encode whole rows: the hidden values of some rows of a chunk, when all of them are there.
  static void encode_hidden(const Bank& bank, const chunk<float>& c, block_range some, row_value* memory) noexcept
    requires encodes_rows
  {
    const std::size_t e = c.rows.expert, length = floats_length(bank, e), step = hidden_length(bank, e);
    for (std::size_t r = some.first; r < some.first + some.count; ++r)
      format::template encode<arch>(floats_of(bank, c, memory) + r * length, bank.width(e),
                                    hidden_of(bank, c, memory) + r * step);
  }

  /// Panels [panel, last) of the output of a chunk, panels_together at most; `next`, next_panel: the chunk and the
  /// panel that come after.
  static void compute_output(const Bank& bank, const chunk<float>& c, std::size_t panel, std::size_t last,
                             const chunk<float>& next, std::size_t next_panel, row_value* memory) noexcept {
    const std::size_t e = c.rows.expert, step = hidden_length(bank, e);
    const auto bytes_of = [&](const chunk<float>& of) {
      return format::template panel_bytes<arch>(bank.width(of.rows.expert));
    };
    const row_value* from = hidden_of(bank, c, memory);
    const reading weights{bank.weights().out_panel(e, panel), bank.weights().out_panel(next.rows.expert, next_panel),
                          bytes_of(c), bytes_of(next)};
    alignas(memory_alignment) float tile[tile_size];
    for_each_block(c.rows.count, weights, [&](std::size_t first, std::size_t rows, formats::detail::read_ahead ahead) {
      prefetch_output(c, panel * panel_columns, std::min(last * panel_columns, bank.d_model()), first, rows);
      if (bank.weights().out_panels_follow(e))
        multiply(last - panel, rows, bank.width(e), from + first * step, step, weights.now, ahead, tile);
      else // a part of each panel
        for (std::size_t p = panel; p < last; ++p)
          multiply(1, rows, bank.width(e), from + first * step, step, bank.weights().out_panel(e, p), ahead,
                   tile + (p - panel) * rows * panel_columns);
      for (std::size_t p = panel; p < last; ++p)
        add_output(bank, c, p, first, rows, tile + (p - panel) * rows * panel_columns);
    });
  }

  /// Events. Rows that lie together already are only encoded, which is part of the product that follows. The gate is
  /// computed with the hidden sums, the weighted addition to tokens with those of the output.
  static probes::event encoding(const Bank& bank, const chunk<float>& c, block_range some) noexcept {
    const bool gathers = !c.rows.tokens.empty();
    const double bytes =
        static_cast<double>(some.count * (bank.d_model() * sizeof(float) + row_length(bank) * sizeof(row_value)));
    return {gathers ? probes::stage::gather : probes::stage::gate_up,
            probes::direction::forward,
            gathers ? some.count : 0,
            bytes,
            0,
            c.rows.expert};
  }
  static probes::event encoding_hidden(const Bank& bank, const chunk<float>& c, block_range some) noexcept {
    const std::size_t e = c.rows.expert;
    const double bytes =
        static_cast<double>(some.count * (bank.width(e) * sizeof(float) + hidden_length(bank, e) * sizeof(row_value)));
    return {probes::stage::gate_up, probes::direction::forward, 0, bytes, 0, e};
  }
  static probes::event hidden(const Bank& bank, const chunk<float>& c, block_range strips) noexcept {
    const std::size_t begin = strips.first * strip_width, h = bank.width(c.rows.expert);
    const std::size_t panels =
        std::min(strips.count * panels_per_strip, bank.weights().in_panels(h) - strips.first * panels_per_strip);
    return product(probes::stage::gate_up, c, strips.first == 0, bank.d_model(), panels,
                   std::min(strips.count * strip_width, h - begin) * panel_columns / hidden_per_panel);
  }
  static probes::event output(const Bank& bank, const chunk<float>& c, block_range panels) noexcept {
    const std::size_t begin = panels.first * panel_columns;
    return product(probes::stage::down, c, panels.first == 0, bank.width(c.rows.expert), panels.count,
                   std::min(panels.count * panel_columns, bank.d_model() - begin));
  }

private:
  /// Panels are read whole, the last one with what pads it.
  static probes::event product(probes::stage stage, const chunk<float>& c, bool first, std::size_t depth,
                               std::size_t panels, std::size_t columns) noexcept {
    const auto n = static_cast<double>(c.rows.count), m = static_cast<double>(columns);
    const auto weights = static_cast<double>(panels * format::template panel_bytes<arch>(depth));
    return {stage,
            probes::direction::forward,
            first ? c.rows.count : 0,
            weights + n * (static_cast<double>(format::row_length(depth) * sizeof(row_value)) + m * sizeof(float)),
            2 * n * static_cast<double>(depth) * m,
            c.rows.expert};
  }
  static constexpr std::size_t tile_size = std::max(block, 2 * tuning.paired_rows) * panel_columns;
  /// Strips in work together at most.
  static constexpr std::size_t most_strips = tuning.paired_rows > 0 ? 2 : 1;

  static std::size_t row_length(const Bank& bank) noexcept { return format::row_length(bank.d_model()); }
  static std::size_t hidden_length(const Bank& bank, std::size_t e) noexcept {
    return format::row_length(bank.width(e));
  }
  static row_value* rows_of(const chunk<float>& c, row_value* memory) noexcept { return memory + c.memory; }
  static row_value* hidden_of(const Bank& bank, const chunk<float>& c, row_value* memory) noexcept {
    return rows_of(c, memory) + c.rows.count * row_length(bank);
  }
  /// Floats of a row of hidden values that are not encoded yet: whole panels, and whole cache lines.
  static std::size_t floats_length(const Bank& bank, std::size_t e) noexcept {
    return formats::detail::padded_row<float>(blocks_of(bank.width(e), hidden_per_panel) * hidden_per_panel);
  }
  static float* floats_of(const Bank& bank, const chunk<float>& c, row_value* memory) noexcept {
    return reinterpret_cast<float*>(hidden_of(bank, c, memory) + c.rows.count * hidden_length(bank, c.rows.expert));
  }

  /// Weights that are read by all blocks of a chunk, and those that are read after them.
  struct reading {
    const std::byte *now, *next;
    std::size_t bytes, next_bytes;

    /// For block b of `blocks`: a single one prefetches what it needs soon, several share what is read next.
    [[nodiscard]] formats::detail::read_ahead ahead(std::size_t b, std::size_t blocks,
                                                    std::size_t rows) const noexcept {
      if (blocks == 1) {
        if (const auto distance = tuning.distance(rows))
          return {now + *distance / panels_together(rows), memory_alignment};
        return {now, 0}; // one line again and again, which costs nothing
      }
      const std::size_t part = std::max<std::size_t>(bytes * blocks, 1); // no bytes: an expert of width 0
      return {next + b * next_bytes / blocks, blocks_of(memory_alignment * next_bytes, part)};
    }
  };
  /// f(first row, rows, what to prefetch) for blocks of nearly equal height: a short last block would run at a fraction
  /// of the speed.
  template <class F> static void for_each_block(std::size_t rows, const reading& weights, F&& f) {
    const std::size_t blocks = blocks_of(rows, block);
    for (std::size_t b = 0; b < blocks; ++b) {
      const block_range some = even_part(b, blocks, rows);
      f(some.first, some.count, weights.ahead(b, blocks, some.count));
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

  /// What will be added to is far apart, so it is asked for before the sums are made: 1 to 2 % for 1024 tokens.
  /// Inlined by force, since g++ 12 takes a function that only prefetches for one without effect and drops the call.
  [[gnu::always_inline]] static void prefetch_output(const chunk<float>& c, std::size_t column, std::size_t last,
                                                     std::size_t first, std::size_t rows) noexcept {
    if (!c.rows.scatters())
      return;
    constexpr std::size_t line = memory_alignment / sizeof(float);
    for (std::size_t r = first; r < first + rows; ++r)
      for (std::size_t k = column; k < last; k += line)
        __builtin_prefetch(c.rows.y.row(c.rows.tokens[r]).data() + k, 1);
  }
  static void add_output(const Bank& bank, const chunk<float>& c, std::size_t panel, std::size_t first,
                         std::size_t rows, float* tile) noexcept {
    const std::size_t column = panel * panel_columns, columns = std::min(panel_columns, bank.d_model() - column);
    bank.finish_output(c.rows.expert, panel, rows, tile);
    for (std::size_t r = 0; r < rows; ++r, tile += panel_columns)
      if (c.rows.scatters())
        row_operations<arch>::template add_scaled<float>(
            c.rows.output_weight(first + r), vector_view<const float>(tile, columns),
            c.rows.y.row(c.rows.tokens[first + r]).subview(column, columns));
      else
        std::copy_n(tile, columns, c.rows.y.row(first + r).data() + column);
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
