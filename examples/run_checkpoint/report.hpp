// SPDX-License-Identifier: MIT
#pragma once

#include "open_layer.hpp"
#include "options.hpp"

namespace run_checkpoint {

/// Runs a batch of random tokens and prints the structure of the layer, the load of its experts, time, efficiency and
/// memory.
void report(const options& chosen, const opened_layer& opened);

} // namespace run_checkpoint
