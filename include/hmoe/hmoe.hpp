// SPDX-License-Identifier: MIT
#pragma once

/// Everything that needs no third-party library, and what the macros of the component targets switch on: link
/// hmoe::eigen for backends/eigen.hpp, hmoe::openmp for execution/openmp.hpp.

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/training/adamw.hpp>
#include <hmoe/training/gradient_norm.hpp>
#include <hmoe/training/schedule.hpp>
#include <hmoe/training/sgd.hpp>
#include <hmoe/version.hpp>

#ifdef HMOE_WITH_EIGEN
#include <hmoe/backends/eigen.hpp>
#include <hmoe/interop/eigen.hpp>
#endif
#ifdef _OPENMP
#include <hmoe/execution/openmp.hpp>
#endif
