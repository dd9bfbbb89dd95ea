// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

namespace hmoe {

/// Where memory lives is part of a view's type, so that a host view given to a device context (or the reverse) is
/// refused by the compiler.
struct host_space {};
struct device_space {};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
