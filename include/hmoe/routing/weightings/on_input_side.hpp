// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

namespace hmoe::routing {

/// Another weighting, on the input side: experts read w·x, and their outputs are added up as they are (Llama-4). Not
/// the same as on the output side, as experts are not linear.
template <class Weighting> struct on_input_side : Weighting {
  static constexpr bool on_input = true;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
