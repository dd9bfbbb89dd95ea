// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace language_model {

/// Number of a piece of text in the vocabulary.
using token = std::uint16_t;

} // namespace language_model
