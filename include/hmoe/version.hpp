// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// \file
/// The version of the library. This is its only home: CMake reads the three numbers from here.

#define HMOE_VERSION_MAJOR 0
#define HMOE_VERSION_MINOR 1
#define HMOE_VERSION_PATCH 0

namespace hmoe {

/// The version of these headers. Before 1.0 a new minor version may break its users.
inline constexpr int version_major = HMOE_VERSION_MAJOR;
inline constexpr int version_minor = HMOE_VERSION_MINOR;
inline constexpr int version_patch = HMOE_VERSION_PATCH;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
