// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cstddef>

/// What kernels exchange: device pointers in plain structs that are passed by value. The meaning of each array is that
/// of the host type of the same name in hmoe/core/; how much of it is used is known on the device only.
namespace hmoe::backends::cuda_detail {

/// hmoe::router_trace, rows of `experts` values, contiguous. The sinks are null in inference.
struct trace_arrays {
  float *logits, *probabilities;     ///< [tokens × experts]
  float *d_logits, *d_probabilities; ///< [tokens × experts]
  index_t* tokens_per_expert;        ///< [experts]
  index_t tokens, experts;
};

/// hmoe::assignment: CSR by token, offsets[tokens] ≤ capacity entries.
struct assignment_arrays {
  index_t* offsets; ///< [tokens + 1]
  index_t* experts; ///< [capacity]
  float* weights;   ///< [capacity]
  index_t tokens, capacity;
};

/// hmoe::plan: CSR by expert, a slot for each entry.
struct plan_arrays {
  index_t* offsets; ///< [experts + 1]
  index_t* tokens;  ///< [capacity] source row of a slot
  index_t* entries; ///< [capacity] entry of a slot
  index_t* slots;   ///< [capacity] slot of an entry
  index_t experts, capacity;
};

/// Experts first … first + count − 1 of a plan.
struct expert_range {
  index_t first, count;
};

/// What went wrong on the device since it was last asked. Kernels only ever raise it, so that the host can look when it
/// wants to; all zero is well.
struct device_status {
  index_t entries_needed;      ///< the largest number of entries that did not fit the capacity
  index_t non_finite_logit;    ///< 1 + a token that had one
  index_t invalid_choice;      ///< 1 + a token for which a selection returned too many, unknown or repeated experts
  index_t non_finite_gradient; ///< 1: gradients whose norm was not finite were set to 0
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
