// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/losses/objective.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// hmoe::routing_record on the device, with the plan.
struct record_arrays {
  trace_arrays trace; ///< with sinks
  assignment_arrays assigned;
  plan_arrays plan;
  const index_t* widths; ///< [trace.experts] hidden width of each routed expert
};

/// Device memory that evaluate_losses uses while it runs, aligned to 256 bytes.
template <class... Losses>
[[nodiscard]] std::size_t evaluate_losses_bytes(const objective<Losses...>& aux, std::size_t tokens,
                                                std::size_t experts);

/// objective::evaluate on the device: values[i] (device memory) is the value of loss i without its coefficient,
/// and the trace's sinks get coefficient × gradient added.
template <class... Losses>
void evaluate_losses(const objective<Losses...>& aux, const record_arrays& record, double* values, std::byte* workspace,
                     cudaStream_t stream);

/// The report that objective::evaluate gives, of values that came back from the device.
template <class... Losses>
[[nodiscard]] loss_report<sizeof...(Losses)> report_of(const objective<Losses...>& aux, const double* values);

} // namespace hmoe::backends::cuda_detail
