// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// How much the output of a layer changes for some tokens, Δy = y' − y.
struct output_change {
  double squared = 0;        ///< mean of ‖Δy‖² over the tokens
  double output_squared = 0; ///< mean of ‖y‖²
  double largest = 0;        ///< largest |Δy| of any value

  /// ‖Δy‖ / ‖y‖ over all tokens together; 0 where nothing changes, infinite where y is 0 and y' is not.
  [[nodiscard]] double relative() const noexcept { return squared == 0 ? 0.0 : std::sqrt(squared / output_squared); }
};

/// Runs both layers on x [T×d]. `inputs`: further data that some routers read, and which tokens are padding: those do
/// not count.
template <execution_context Context, class Before, class After>
[[nodiscard]] output_change measure_change(const Context& ctx, const Before& before, const After& after,
                                           matrix_view<const typename Before::value_type> x,
                                           const routing_inputs<typename Before::value_type>& inputs = {}) {
  matrix<typename Before::value_type> y(x.rows(), x.cols()), changed(x.rows(), x.cols());
  before.forward(ctx, x, y, inputs);
  after.forward(ctx, x, changed, inputs);
  const auto valid =
      static_cast<std::size_t>(std::count_if(inputs.valid.begin(), inputs.valid.end(), [](auto v) { return v != 0; }));
  const auto tokens = static_cast<double>(std::max<std::size_t>(inputs.valid.empty() ? x.rows() : valid, 1));
  output_change result;
  for (std::size_t t = 0; t < x.rows(); ++t)
    for (std::size_t i = 0; i < x.cols(); ++i) {
      const auto a = static_cast<double>(y(t, i)), difference = static_cast<double>(changed(t, i)) - a;
      result.squared += difference * difference / tokens;
      result.output_squared += a * a / tokens;
      result.largest = std::max(result.largest, std::abs(difference));
    }
  return result;
}

/// What a compression did to a layer. FLOPs are those of the experts for a token of the calibration, forward.
struct report {
  std::vector<std::size_t> widths_before, widths;    ///< [N]
  std::size_t parameters_before = 0, parameters = 0; ///< of the experts; those that several share count once
  std::size_t bytes_before = 0, bytes = 0;           ///< of these
  double flops_before = 0, flops = 0;
  /// Predicted mean of ‖Δy‖² over the tokens of the calibration, as the function that compressed says; compare it with
  /// measured->squared.
  std::optional<double> predicted;
  std::optional<output_change> measured; ///< by compressed::measure
};

/// A new layer, and what became of the old one.
template <class Layer> struct compressed {
  Layer layer;
  compress::report report;

  /// Fills report.measured: runs both layers on x.
  template <execution_context Context, class Before>
  const output_change& measure(const Context& ctx, const Before& before,
                               matrix_view<const typename Layer::value_type> x,
                               const routing_inputs<typename Layer::value_type>& inputs = {}) {
    return report.measured.emplace(compress::measure_change(ctx, before, layer, x, inputs));
  }
};

namespace detail {
/// Parameters and bytes in memory of the experts of a set.
template <class Set> void add_memory(const Set& set, std::size_t& parameters, std::size_t& bytes) {
  set.for_each_bank([&](const auto& bank, vector_view<const std::size_t> ids) {
    if constexpr (requires { bank.stored().for_each_bank([](const auto&, auto) {}); }) {
      detail::add_memory(bank.stored(), parameters, bytes);
    } else {
      for (const std::size_t e : ids) {
        parameters += set.parameter_count(e);
        bytes += set.bytes(e);
      }
    }
  });
}
/// `load(e)`: rows of expert e for each token.
template <class Before, class After, class Load>
[[nodiscard]] compressed<After> with_report(const Before& before, After after, const Load& load) {
  compressed<After> result{std::move(after), {}};
  report& r = result.report;
  for (std::size_t e = 0; e < before.size(); ++e) {
    const auto& old = before.experts();
    const auto& now = result.layer.experts();
    r.widths_before.push_back(old.width(e));
    r.widths.push_back(now.width(e));
    r.flops_before += load(e) * old.flops_per_row(e);
    r.flops += load(e) * now.flops_per_row(e);
  }
  detail::add_memory(before.experts(), r.parameters_before, r.bytes_before);
  detail::add_memory(result.layer.experts(), r.parameters, r.bytes);
  return result;
}
} // namespace detail

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
