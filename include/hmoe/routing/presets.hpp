// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

/// Routers of released models, put together of the policies and nothing else. Each says what its checkpoints call the
/// router's tensors (below model.layers.N.) and which parameters of ours they are; models differ in size only through
/// the constructor's arguments. Arithmetic is in T throughout: models that make logits in float32 need T = float.
namespace hmoe::routing::presets {

/// Mixtral 8x7B, 8x22B: softmax over all experts, top k = 2, renormalised.
///   mixtral<float> r{4096, 8, 2};
/// block_sparse_moe.gate.weight [N×d] = router.weight
template <float_or_double T> using mixtral = router<linear<T>, top_k<>, renormalized>;

/// Qwen2-MoE: softmax, top k, weights as they are (norm_topk_prob = false), and one shared expert times a sigmoid.
///   qwen2_moe<float> r{2048, 60, 4};
/// mlp.gate.weight [N×d] = router.weight, mlp.shared_expert_gate.weight [1×d] = router.shared_gate
template <float_or_double T, class Weighting = raw>
using qwen2_moe = router<linear<T>, top_k<>, Weighting, sigmoid_gated<T>>;

/// Qwen3-MoE: softmax, top k, renormalised (norm_topk_prob = true; where a checkpoint has false, Weighting = raw).
///   qwen3_moe<float> r{2048, 128, 8};
/// mlp.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = renormalized> using qwen3_moe = router<linear<T>, top_k<>, Weighting>;

/// OLMoE-1B-7B: softmax, top k, weights as they are (norm_topk_prob = false; where it is true, Weighting =
/// renormalized).
///   olmoe<float> r{2048, 64, 8};
/// mlp.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = raw> using olmoe = router<linear<T>, top_k<>, Weighting>;

/// DeepSeek-V2: softmax; the best groups by their best expert, other experts count 0; weights times a scale; shared
/// experts with weight 1 (a checkpoint's n_shared_experts are stored as one expert of their joint width).
///   deepseek_v2<float> r{5120, 160, {.groups = 8, .kept = 3, .k = 6}, {.factor = 16}};
/// V2-Lite (topk_method "greedy") is .groups = 1, .kept = 1. Probabilities are positive, so the zero is never chosen
/// before a kept expert. mlp.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = raw>
using deepseek_v2 = router<linear<T>, group_limited<group_score::best, group_mask::zero>, scaled<Weighting>, always_on>;

/// renormalized with the ε = 1e-20 of DeepSeek-V3's code, unless another is given.
struct deepseek_renormalized : renormalized {
  constexpr deepseek_renormalized(double epsilon_ = 1e-20) noexcept : renormalized{epsilon_} {}
};

/// DeepSeek-V3, R1: sigmoid; a bias for the choice only; the best groups by their two best experts; renormalised with
/// ε = 1e-20, times a scale; shared experts with weight 1. Mask: `excluded` as in the authors' code;
/// older releases of Hugging Face transformers have `zero`, which differs where biased scores are negative.
///   deepseek_v3<float> r{7168, 256, {256, {.groups = 8, .kept = 4, .k = 8}}, {.factor = 2.5}};
/// mlp.gate.weight [N×d] = router.weight, mlp.gate.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T, group_mask Mask = group_mask::excluded>
using deepseek_v3 = router<linear<T, sigmoid>, biased<T, group_limited<group_score::best_two, Mask>>,
                           scaled<deepseek_renormalized>, always_on>;

/// gpt-oss: logits with a bias, the top k of them, softmax over those k. There are no probabilities of all experts: a
/// loss that reads them needs linear<T, softmax, true> in place of this score (the same choices but for rounding).
///   gpt_oss<float> r{2880, 128, 4};
/// mlp.router.weight [N×d] = router.weight, mlp.router.bias [N] = router.bias
template <float_or_double T> using gpt_oss = router<linear<T, unscored, true>, top_k<>, softmax_over_selected>;

/// Llama-4: the top k = 1 of the logits; experts read σ(logit)·x; one shared expert with weight 1.
///   llama4<float> r{5120, 16, 1};
/// feed_forward.router.weight [N×d] = router.weight
template <float_or_double T>
using llama4 = router<linear<T, unscored>, top_k<>, on_input_side<sigmoid_of_logit>, always_on>;

/// Switch Transformer: softmax, top 1, weight = its probability; the router's input is jittered by 1 ± 1e-2 when the
/// pass is given a noise source. Capacity is a matter of dispatch.
///   switch_transformer<float> r{768, 8};
/// mlp.router.classifier.weight [N×d] = router.weight
template <float_or_double T> using switch_transformer = router<jittered<linear<T>>, top_k<1>, raw>;

/// LongCat-Flash: softmax over FFN and zero-computation experts, a bias for the choice only, weights times a scale
/// without renormalisation. The zero-computation experts are experts::identity, last in the set.
///   longcat_flash<float> r{6144, 512 + 256, {512 + 256, 12}, {.factor = 6}};
/// mlp.router.classifier.weight [N×d] = router.weight, mlp.router.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T> using longcat_flash = router<linear<T>, biased<T, top_k<>>, scaled<raw>>;

/// HMoE (arXiv 2408.10681) with top-k routing: softmax, k = 2, renormalised.
///   hmoe_top_k<float> r{768, 8, 2};
template <float_or_double T> using hmoe_top_k = router<linear<T>, top_k<>, renormalized>;

/// HMoE with top-p routing: softmax, p = 0.6, renormalised.
///   hmoe_top_p<float> r{768, 8, 0.6};
template <float_or_double T> using hmoe_top_p = router<linear<T>, top_p, renormalized>;

} // namespace hmoe::routing::presets
