// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

/// near_best, the selection of the README, as it stands in the example.
#ifndef _OPENMP // which the example asks for, but does not need here
namespace hmoe::executors {
using openmp = serial;
} // namespace hmoe::executors
#endif
#define main run_example
#include "../../examples/custom_selection.cpp"
#undef main
