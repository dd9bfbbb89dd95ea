// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/losses/objective.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <tuple>
#include <utility>

namespace hmoe::backends {

/// The values of an objective that a device layer has evaluated, still on the device, in the tape.
template <class... Losses> class device_losses {
public:
  device_losses(const std::array<double, sizeof...(Losses)>& coefficients, const double* values)
      : coefficients_(coefficients), values_(values) {}

  /// The report that objective::evaluate gives on the host; waits for the stream.
  [[nodiscard]] loss_report<sizeof...(Losses)> read(const cuda_context& ctx) const {
    std::array<double, sizeof...(Losses)> values{};
    if constexpr (sizeof...(Losses) != 0)
      cuda_detail::require_cuda(
          cudaMemcpyAsync(values.data(), values_, sizeof values, cudaMemcpyDeviceToHost, ctx.stream()),
          "copying the values of losses from the device");
    ctx.synchronize();
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return loss_report<sizeof...(Losses)>{{loss_term{Losses::name, values[I], coefficients_[I]}...}};
    }(std::index_sequence_for<Losses...>{});
  }

private:
  std::array<double, sizeof...(Losses)> coefficients_;
  const double* values_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
