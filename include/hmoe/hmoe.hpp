// SPDX-License-Identifier: MIT
#pragma once

// clang-format off
#include <hmoe/core/macros_off.hpp>
// clang-format on

/// Everything that needs no third-party library, and what the macros of the component targets switch on: link
/// hmoe::eigen for backends/eigen.hpp, hmoe::simd for backends/simd.hpp, and compile with OpenMP (hmoe::openmp) for
/// execution/openmp.hpp. execution/tbb.hpp (hmoe::tbb), backends/cuda.hpp (hmoe::cuda) and the headers of hmoe::io,
/// which read files of models, have to be included by name, and so have layer/any_layer.hpp, compress.hpp, the headers
/// of hmoe/parallel/, for several ranks, dispatch/tune.hpp and measure_machine.hpp, which measure, and the probes of
/// hmoe/probes/, which write reports.

#include <hmoe/backends/isa.hpp>
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/absent_components.hpp>
#include <hmoe/core/assertions.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/compiler.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/huge_pages.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/overlap.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/after_drops.hpp>
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/explanation.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/dispatch/strategy.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/weight_source.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/layer/diagnose.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/intra_group_balance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/of_softmax.hpp>
#include <hmoe/losses/of_tokens.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selection.hpp>
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>
#include <hmoe/routing/controllers/top_p_controller.hpp>
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>
#include <hmoe/routing/preference.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/scores/own_input.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/jointly_weighted.hpp>
#include <hmoe/routing/shared/no_shared.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>
#include <hmoe/routing/weightings/score_of_logit.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/routing/weightings/sparsemixer.hpp>
#include <hmoe/statistics/activation.hpp>
#include <hmoe/statistics/co_activation.hpp>
#include <hmoe/statistics/divergence.hpp>
#include <hmoe/statistics/drops.hpp>
#include <hmoe/statistics/expert_load.hpp>
#include <hmoe/statistics/imbalance.hpp>
#include <hmoe/statistics/router_entropy.hpp>
#include <hmoe/statistics/token_distribution.hpp>
#include <hmoe/statistics/wasserstein.hpp>
#include <hmoe/training/adamw.hpp>
#include <hmoe/training/gradient_norm.hpp>
#include <hmoe/training/schedule.hpp>
#include <hmoe/training/sgd.hpp>
#include <hmoe/version.hpp>

#ifdef HMOE_WITH_EIGEN
#include <hmoe/backends/eigen.hpp>
#include <hmoe/interop/eigen.hpp>
#endif
#ifdef HMOE_WITH_SIMD
#include <hmoe/backends/simd.hpp>
#endif
#ifdef _OPENMP
#include <hmoe/execution/openmp.hpp>
#endif

// clang-format off
#include <hmoe/core/macros_on.hpp>
// clang-format on
