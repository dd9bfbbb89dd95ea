// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// Marks functions that a device kernel may call as they are: no exceptions, no allocation, no std containers.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define HMOE_HOST_DEVICE __host__ __device__
#else
#define HMOE_HOST_DEVICE
#endif

/// Put before a host/device template that calls a member of one of its arguments: silences nvcc's warning when that
/// member is host-only.
#if defined(__CUDACC__)
#define HMOE_CALLS_ARGUMENT _Pragma("nv_exec_check_disable")
#else
#define HMOE_CALLS_ARGUMENT
#endif

/// After a parameter that the returned object refers to: clang warns where a temporary is given and the object is kept.
#if defined(__clang__) && !defined(__CUDACC__)
#define HMOE_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define HMOE_LIFETIMEBOUND
#endif

#include <cstddef>
#include <cstdint>

namespace hmoe {

/// Stored ids: tokens, experts and slots in the flat arrays that stages exchange. Sizes and loop counters are
/// std::size_t; only what is kept in bulk (and copied to a device) is this narrow.
using index_t = std::uint32_t;

/// "No such slot": a dropped entry of the assignment, an expert that is not there.
inline constexpr index_t no_index = static_cast<index_t>(-1);

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
