// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/balancing_losses.cuh>
#include <hmoe/backends/cuda/importance_loss.cuh>
#include <hmoe/backends/cuda/loss_arrays.hpp>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/backends/cuda/sequence_loss.cuh>
#include <hmoe/backends/cuda/token_losses.cuh>
#include <hmoe/core/error.hpp>
#include <hmoe/losses/objective.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <tuple>
#include <type_traits>

/// hmoe::objective on the device: values stay there, gradients go to the trace's sinks.
namespace hmoe::backends::cuda_detail {

/// Whether a loss has kernels.
template <class Loss>
concept device_loss =
    requires(const Loss& loss, const routed_batch_arrays& batch, const loss_scratch& scratch, double* value,
             cudaStream_t stream) { launch_loss(loss, batch, scratch, value, stream); };

/// Device memory that evaluate_losses uses while it runs, aligned to 256 bytes.
template <class... Losses>
[[nodiscard]] std::size_t evaluate_losses_bytes(const objective<Losses...>&, std::size_t tokens, std::size_t experts) {
  return carve_losses(tokens, experts, nullptr).bytes;
}

/// objective::evaluate on the device: values[i] (device memory) becomes the value of loss i without its coefficient,
/// and the trace's sinks get coefficient × gradient added. Throws
/// what the host throws, before anything is launched.
template <class... Losses>
void evaluate_losses(const objective<Losses...>& aux, const routed_batch_arrays& batch, double* values,
                     std::byte* workspace, cudaStream_t stream) {
  static_assert((device_loss<Losses> && ...),
                "hmoe::backends::cuda: an element of Losses has no form for the device: there are load_balance, "
                "parameter_penalty, compute_cost, importance, router_entropy, z, adaptive_l1, sequence_balance and "
                "of_tokens, and whatever has a launch_loss (docs/backends/cuda.md); evaluate others on the host");
  if constexpr ((device_loss<Losses> && ...)) {
    std::apply([&](const Losses&... loss) { (check_loss(loss, batch), ...); }, aux.losses());
    if (batch.trace.tokens == 0) {
      require_cuda(cudaMemsetAsync(values, 0, sizeof...(Losses) * sizeof(double), stream), "clearing losses");
      return;
    }
    require(batch.trace.d_logits != nullptr && batch.trace.d_probabilities != nullptr,
            "an auxiliary loss needs a trace with gradient sinks: run forward with a tape");
    const loss_scratch scratch = carve_losses(batch.trace.tokens, batch.trace.experts, workspace);
    launch_column_sums(batch, scratch, stream);
    std::apply(
        [&](const Losses&... loss) {
          double* value = values;
          (launch_loss(loss, batch, scratch, value++, stream), ...); // from left to right, as on the host
        },
        aux.losses());
  }
}

/// The report that objective::evaluate gives, of values that came back from the device.
template <class... Losses>
[[nodiscard]] loss_report<sizeof...(Losses)> report_of(const objective<Losses...>& aux, const double* values) {
  return std::apply(
      [&](const Losses&... loss) {
        return loss_report<sizeof...(Losses)>{{loss_term{Losses::name, *values++, loss.coefficient}...}};
      },
      aux.losses());
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
