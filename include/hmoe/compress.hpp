// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// Everything in compress/: importance, pruning, merging, nested widths, formats under a budget. hmoe.hpp leaves it
/// out: few programs compress, and all would read it.

#include <hmoe/compress/assign_formats.hpp>
#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/group_experts.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/linear_assignment.hpp>
#include <hmoe/compress/merge_experts.hpp>
#include <hmoe/compress/merged_bank.hpp>
#include <hmoe/compress/nested.hpp>
#include <hmoe/compress/nested_levels.hpp>
#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/compress/order_neurons.hpp>
#include <hmoe/compress/possible_bank.hpp>
#include <hmoe/compress/prune_neurons.hpp>
#include <hmoe/compress/replace_experts.hpp>
#include <hmoe/compress/report.hpp>

// clang-format off
#include <hmoe/core/macros_on.hpp>
