// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/neurons.hpp>
#include <hmoe/compress/possible_bank.hpp>
#include <hmoe/compress/report.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// What an expert costs in a format: memory, and the mean over all tokens of u² ‖o' − o‖², the change that the format
/// alone makes to the layer's output.
struct format_cost {
  std::size_t bytes = 0;
  double error = 0;
};

/// The format of each expert, an index into costs[e], within `bytes` in all: from the smallest, the step that lowers
/// the error most per byte, again and again, as long as one fits. Steps to a format of more bytes without a smaller
/// error are never taken. hmoe::error where the smallest formats need more.
[[nodiscard]] inline std::vector<std::size_t> choose_formats(const std::vector<std::vector<format_cost>>& costs,
                                                             std::size_t bytes) {
  std::vector<std::size_t> chosen(costs.size());
  std::size_t used = 0;
  for (std::size_t e = 0; e < costs.size(); ++e) {
    if (costs[e].empty())
      continue;
    for (std::size_t f = 1; f < costs[e].size(); ++f) {
      const format_cost &a = costs[e][f], &b = costs[e][chosen[e]];
      if (a.bytes < b.bytes || (a.bytes == b.bytes && a.error < b.error))
        chosen[e] = f;
    }
    used += costs[e][chosen[e]].bytes;
  }
  require(used <= bytes, "the smallest formats of all experts take ", used, " bytes, allowed are ", bytes);
  for (;;) {
    std::size_t expert = costs.size(), format = 0;
    double best = 0;
    for (std::size_t e = 0; e < costs.size(); ++e)
      for (std::size_t f = 0; f < costs[e].size(); ++f) {
        const format_cost &now = costs[e][chosen[e]], &next = costs[e][f];
        if (next.bytes <= now.bytes || next.error >= now.error || used + (next.bytes - now.bytes) > bytes)
          continue;
        const double gain = (now.error - next.error) / static_cast<double>(next.bytes - now.bytes);
        if (gain > best) {
          best = gain;
          expert = e;
          format = f;
        }
      }
    if (expert == costs.size())
      return chosen;
    used += costs[expert][format].bytes - costs[expert][chosen[expert]].bytes;
    chosen[expert] = format;
  }
}

/// assign_formats tells, beside the report, what it chose from.
template <class Layer> struct formatted : compressed<Layer> {
  std::vector<std::vector<format_cost>> costs; ///< [N][number of formats]; empty for experts that are not packed
  std::vector<std::size_t> chosen;             ///< [N] index of the format
};

namespace detail {
template <class Backend, class Format, class Bank>
using packed_t = decltype(Backend::template pack<Format>(std::declval<const Bank&>()));

/// Adds the cost of each packed expert: `rows` are what the experts of the tape's plan read.
template <execution_context Context, class Packed, class T>
void add_costs(const Context& ctx, const Packed& packed, const std::vector<bool>& is_packed, const tape<T>& tape,
               matrix_view<const T> rows, std::vector<std::vector<format_cost>>& costs) {
  const plan& by_expert = tape.plan();
  matrix<T> out(rows.rows(), rows.cols());
  std::vector<expert_rows<T>> list;
  for (std::size_t e = 0; e < packed.size(); ++e)
    if (is_packed[e] && by_expert.rows_of(e) != 0) {
      const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
      list.push_back(expert_rows<T>::forward(e, rows.row_block(first, count), out.view().row_block(first, count), {}));
    }
  packed.forward_rows(ctx, vector_view<const expert_rows<T>>(list.data(), list.size()));
  const auto tokens = static_cast<double>(std::max<std::size_t>(tape.assignment().valid_tokens(), 1));
  for (std::size_t e = 0; e < packed.size(); ++e) {
    if (!is_packed[e])
      continue;
    format_cost& cost = costs[e].emplace_back(format_cost{packed.bytes(e), 0});
    for (std::size_t slot = by_expert.offsets()[e]; slot < by_expert.offsets()[e + 1]; ++slot) {
      if (by_expert.tokens()[slot] == no_index)
        continue;
      const double u = tape.weights_on_input() ? 1.0 : static_cast<double>(dispatch::slot_weight(tape, slot));
      for (std::size_t i = 0; i < rows.cols(); ++i) {
        const double change =
            u * (static_cast<double>(out(slot, i)) - static_cast<double>(tape.expert_output()(slot, i)));
        cost.error += change * change / tokens;
      }
    }
  }
}
} // namespace detail

/// A layer for inference whose experts are packed each in a format of its own, within `bytes` of memory for all
/// experts:
///   auto small = compress::assign_formats<formats::q4, formats::q8, formats::bf16>(ctx, layer, x, 100'000'000);
/// The backend of the context packs (backends::simd). For each format all experts are packed and run on the rows that
/// the router gives them of x [T×d], the calibration tokens; so the peak memory is the layer, one packed copy of it and
/// the rows. Then choose_formats decides. Experts without neurons stay as they are. The result keeps ids and router;
/// its banks are those of the first bank in the order of the formats, then those of the second one (possible_bank).
/// Predicted is the sum of the errors chosen, right where those of several experts are uncorrelated.
template <class... Formats, execution_context Context, class... Banks, class Router, class Dispatch>
[[nodiscard]] auto assign_formats(const Context& ctx, const moe_layer<expert_set<Banks...>, Router, Dispatch>& layer,
                                  matrix_view<const typename expert_set<Banks...>::value_type> x, std::size_t bytes,
                                  const routing_inputs<typename expert_set<Banks...>::value_type>& inputs =
                                      routing_inputs<typename expert_set<Banks...>::value_type>()) {
  static_assert(sizeof...(Formats) >= 1,
                "hmoe::compress::assign_formats: Formats is empty: name some, for instance "
                "assign_formats<formats::q4, formats::q8, formats::bf16>(ctx, layer, x, bytes)");
  using T = typename expert_set<Banks...>::value_type;
  using backend = std::remove_cvref_t<decltype(ctx.backend())>;
  const auto& set = layer.experts();
  std::vector<bool> is_packed(set.size());
  std::size_t others = 0;
  set.for_each_bank([&]<class Bank>(const Bank&, vector_view<const std::size_t> ids) {
    for (const std::size_t e : ids) {
      is_packed[e] = neuron_bank<Bank>;
      others += neuron_bank<Bank> ? 0 : set.bytes(e);
    }
  });
  require(others <= bytes, "experts that are not packed take ", others, " bytes, allowed are ", bytes);

  std::vector<std::vector<format_cost>> costs(set.size());
  std::vector<double> loads(set.size());
  {
    matrix<T> y(x.rows(), x.cols());
    auto tape = layer.make_tape(x.rows());
    layer.forward(ctx, x, y, tape, inputs);
    require(tape.plan().expert_count() == set.size(),
            "assign_formats needs a layer with another dispatch strategy than dispatch::dense, which keeps no plan");
    matrix<T> rows(tape.plan().size(), x.cols());
    dispatch::gather_input(ctx, tape, 0, x, rows.view());
    const auto tokens = static_cast<double>(std::max<std::size_t>(tape.assignment().valid_tokens(), 1));
    for (std::size_t e = 0; e < set.size(); ++e)
      loads[e] = static_cast<double>(tape.plan().rows_of(e)) / tokens;
    (..., detail::add_costs(ctx, backend::template pack<Formats>(set), is_packed, std::as_const(tape),
                            matrix_view<const T>(rows), costs));
  }
  std::vector<std::size_t> chosen = compress::choose_formats(costs, bytes - others);

  expert_ids numbers;
  const auto banks_of = [&]<class Bank>(const Bank& bank, const std::vector<std::size_t>& ids) {
    if constexpr (neuron_bank<Bank>) {
      const auto of_format = [&]<class Format>(std::size_t format, std::type_identity<Format>) {
        using possible = possible_bank<detail::packed_t<backend, Format, Bank>>;
        std::vector<std::size_t>& own = numbers.of_bank.emplace_back();
        std::vector<std::size_t> places;
        for (std::size_t i = 0; i < ids.size(); ++i)
          if (chosen[ids[i]] == format) {
            own.push_back(ids[i]);
            places.push_back(i);
          }
        return places.empty() ? possible(set.d_model())
                              : possible(backend::template pack<Format>(detail::some_experts(bank, places)));
      };
      return [&]<std::size_t... F>(std::index_sequence<F...>) {
        return std::tuple{of_format(F, std::type_identity<Formats>{})...}; // braces: in this order
      }(std::index_sequence_for<Formats...>{});
    } else {
      numbers.of_bank.push_back(ids);
      return std::tuple<Bank>{bank};
    }
  };
  auto banks = [&]<std::size_t... B>(std::index_sequence<B...>) {
    std::tuple<decltype(banks_of(set.template bank<B>(), set.ids().of_bank[B]))...> of_all{
        banks_of(set.template bank<B>(), set.ids().of_bank[B])...};
    return std::apply([](auto&... some) { return std::tuple_cat(std::move(some)...); }, of_all);
  }(std::index_sequence_for<Banks...>{});
  auto packed = std::apply([&](auto&... some) { return expert_set(std::move(numbers), std::move(some)...); }, banks);

  using result_layer = decltype(layer.with_experts(std::move(packed)));
  formatted<result_layer> result{
      detail::with_report(layer, layer.with_experts(std::move(packed)), [&](std::size_t e) { return loads[e]; }),
      std::move(costs), std::move(chosen)};
  double& predicted = result.report.predicted.emplace(0);
  for (std::size_t e = 0; e < result.costs.size(); ++e)
    if (!result.costs[e].empty())
      predicted += result.costs[e][result.chosen[e]].error;
  return result;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
