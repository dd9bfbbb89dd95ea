// SPDX-License-Identifier: MIT
#pragma once

#include "passes.hpp"

namespace hmoe::python {

/// A kernel's form for this CPU, chosen once: it takes the process some microseconds. hmoe::error, once and again,
/// where the CPU has none of the instruction sets.
template <const auto& Built> [[nodiscard]] auto* kernel() {
  static auto* const chosen = isa::select(Built);
  return chosen;
}

} // namespace hmoe::python
