// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/own_input.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/jointly_weighted.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/routing/weightings/sparsemixer.hpp>

/// Routers of released models, put together of the policies and nothing else. Each says what its checkpoints call the
/// router's tensors (below model.layers.N.) and which parameters of ours they are; models differ in size through the
/// constructor's arguments, and in their normalisation through Weighting, which every preset but phimoe takes.
/// Constants that a checkpoint's configuration holds (k, groups, factor) have no default: what is left out is a compile
/// error or an hmoe::error. Constants of the code (ε) are in the preset. Arithmetic is in T throughout: models that
/// make logits in float32 need T = float. A checkpoint's n shared experts are stored as one expert of their joint
/// width.
namespace hmoe::routing::presets {

/// Mixtral 8x7B, 8x22B: softmax over all experts, top k = 2, renormalised.
///   mixtral<float> r{4096, 8, 2};
/// block_sparse_moe.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = renormalized> using mixtral = router<linear<T>, top_k<>, Weighting>;

/// MiniMax-Text-01: as Mixtral.
///   minimax<float> r{6144, 32, 2};
/// block_sparse_moe.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = renormalized> using minimax = mixtral<T, Weighting>;

/// DBRX: softmax, top k = 4, divided by the 1-norm of the chosen (moe_normalize_expert_weights = 1; where it is another
/// q, Weighting = normalized<> with {.order = q}, where it is null, raw).
///   dbrx<float> r{6144, 16, 4};
/// ffn.router.layer.weight [N×d] = router.weight (below transformer.blocks.N.)
template <float_or_double T, class Weighting = renormalized> using dbrx = mixtral<T, Weighting>;

/// Qwen2-MoE: softmax, top k, weights as they are (norm_topk_prob = false), and one shared expert times a sigmoid.
///   qwen2_moe<float> r{2048, 60, 4};
/// mlp.gate.weight [N×d] = router.weight, mlp.shared_expert_gate.weight [1×d] = router.shared_gate
template <float_or_double T, class Weighting = raw>
using qwen2_moe = router<linear<T>, top_k<>, Weighting, sigmoid_gated<T>>;

/// Qwen3-MoE: softmax, top k, renormalised (norm_topk_prob = true; where a checkpoint has false, Weighting = raw).
///   qwen3_moe<float> r{2048, 128, 8};
/// mlp.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = renormalized> using qwen3_moe = router<linear<T>, top_k<>, Weighting>;

/// Qwen3-Next: softmax, top k, renormalised, and one shared expert times a sigmoid.
///   qwen3_next<float> r{2048, 512, 10};
/// mlp.gate.weight [N×d] = router.weight, mlp.shared_expert_gate.weight [1×d] = router.shared_gate
template <float_or_double T, class Weighting = renormalized> using qwen3_next = qwen2_moe<T, Weighting>;

/// OLMoE-1B-7B: softmax, top k, weights as they are (norm_topk_prob = false; where it is true, Weighting =
/// renormalized).
///   olmoe<float> r{2048, 64, 8};
/// mlp.gate.weight [N×d] = router.weight
template <float_or_double T, class Weighting = raw> using olmoe = router<linear<T>, top_k<>, Weighting>;

/// Hunyuan-A13B: softmax, top k, renormalised, one shared expert with weight 1.
///   hunyuan<float> r{4096, 64, 8};
/// mlp.gate.wg.weight [N×d] = router.weight
template <float_or_double T, class Weighting = renormalized>
using hunyuan = router<linear<T>, top_k<>, Weighting, always_on>;

/// renormalized by max(Σ, 1e-12), ERNIE's moe_norm_min, unless another is given.
struct ernie_renormalized : renormalized {
  constexpr ernie_renormalized(double least = 1e-12) noexcept : renormalized{least, epsilon_use::clamped} {}
};

/// ERNIE-4.5: softmax, a bias for the choice only, renormalised by max(Σ, 1e-12), shared experts with weight 1
/// (always_on{0} where moe_num_shared_experts is 0).
///   ernie_4_5<float> r{2560, 64, {64, 6}};
/// mlp.gate.weight [N×d] = router.weight, mlp.moe_statics.e_score_correction_bias [1×N] = router.selection_bias
template <float_or_double T, class Weighting = ernie_renormalized>
using ernie_4_5 = router<linear<T>, biased<T, top_k<>>, Weighting, always_on>;

/// DeepSeek-V2: softmax; the best groups by their best expert, other experts count 0; weights times a scale; shared
/// experts with weight 1.
///   deepseek_v2<float> r{5120, 160, {.groups = 8, .kept = 3, .k = 6}, {.factor = 16}};
/// V2-Lite (topk_method "greedy") is .groups = 1, .kept = 1 and .factor = 1. Probabilities are positive, so the zero is
/// never chosen before a kept expert. mlp.gate.weight [N×d] = router.weight
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
/// mlp.gate.weight [N×d] = router.weight, mlp.gate.e_score_correction_bias [N] = router.selection_bias. Where
/// norm_topk_prob is false, Weighting = raw.
template <float_or_double T, group_mask Mask = group_mask::excluded, class Weighting = deepseek_renormalized>
using deepseek_v3 =
    router<linear<T, sigmoid>, biased<T, group_limited<group_score::best_two, Mask>>, scaled<Weighting>, always_on>;

/// dots.llm1: as DeepSeek-V3.
///   dots1<float> r{4096, 128, {128, {.groups = 1, .kept = 1, .k = 6}}, {.factor = 2.5}};
template <float_or_double T, class Weighting = deepseek_renormalized>
using dots1 = deepseek_v3<T, group_mask::excluded, Weighting>;

/// GLM-4.5, GLM-4.6 (glm4_moe): as DeepSeek-V3.
///   glm4_moe<float> r{5120, 160, {160, {.groups = 1, .kept = 1, .k = 8}}, {.factor = 2.5}};
template <float_or_double T, class Weighting = deepseek_renormalized>
using glm4_moe = deepseek_v3<T, group_mask::excluded, Weighting>;

/// Nemotron-H: as DeepSeek-V3.
///   nemotron_h<float> r{2688, 128, {128, {.groups = 1, .kept = 1, .k = 6}}, {.factor = 2.5}};
/// mixer.gate.weight [N×d] = router.weight, mixer.gate.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T, class Weighting = deepseek_renormalized>
using nemotron_h = deepseek_v3<T, group_mask::excluded, Weighting>;

/// Nemotron-H with moe_latent_size: the router reads tokens of d_model (routing_inputs::router_x), experts what
/// fc1_latent_proj makes of them. The shared expert reads d_model, too, so it stands beside the layer.
///   nemotron_h_latent<float> r{4096, 512, {512, {.groups = 1, .kept = 1, .k = 22}}, {.factor = 5}};
template <float_or_double T, class Weighting = deepseek_renormalized>
using nemotron_h_latent = router<own_input<linear<T, sigmoid>>, biased<T, group_limited<>>, scaled<Weighting>>;

/// Inkling: sigmoid, a bias for the choice only, top k; the weights of the chosen and of the shared experts are divided
/// by their sum, times a scale (its route_scale times its global_scale, which is trained there and a constant here).
///   inkling<float> r{d, N, {N, k}, {.factor = …}, jointly_weighted<float>{d, n_shared_experts}};
/// mlp.gate.weight [(N + shared)×d]: the first N rows = router.weight, the others = router.shared_gate;
/// mlp.gate.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T, class Weighting = renormalized>
using inkling = router<linear<T, sigmoid>, biased<T, top_k<>>, scaled<Weighting>, jointly_weighted<T>>;

/// Gemma 4: the router reads the residual stream (routing_inputs::router_x), normalised and scaled, experts a
/// normalisation of their own of it; softmax, top k, renormalised, times a learned scale per expert.
///   gemma4<float> r{{2816, 128, 1e-6}, 8, scaled_per_expert<float>{128}};     // d, N, rms_norm_eps; k; N
/// router.proj.weight [N×d] = router.weight, router.scale [d] = router.input_scale, router.per_expert_scale [N] =
/// router.expert_scale
template <float_or_double T, class Weighting = renormalized>
using gemma4 = router<own_input<rms_normalized<linear<T>>>, top_k<>, scaled_per_expert<T, Weighting>>;

/// DeepSeek-V4: √softplus; a bias for the choice only; renormalised with ε = 1e-20, times a scale; one shared expert
/// with weight 1. Experts have a clamped gate, experts::clamped<experts::silu>.
///   deepseek_v4<float> r{4096, 256, {256, 6}, {.factor = 1.5}};
/// mlp.gate.weight [N×d] = router.weight, mlp.gate.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T, class Weighting = deepseek_renormalized>
using deepseek_v4 = router<linear<T, sqrt_softplus>, biased<T, top_k<>>, scaled<Weighting>, always_on>;

/// The first layers of DeepSeek-V4 ("hash_moe"): experts by the token's vocabulary id, weights as above.
///   deepseek_v4_hash<float> r{4096, 256, {tid2eid, 6}, {.factor = 1.5}};
/// mlp.gate.weight [N×d] = router.weight, mlp.gate.tid2eid [vocabulary×k] = the table
template <float_or_double T, class Weighting = deepseek_renormalized>
using deepseek_v4_hash = router<linear<T, sqrt_softplus>, hash_table, scaled<Weighting>, always_on>;

/// MiniMax-M2: sigmoid, a bias for the choice only, renormalised.
///   minimax_m2<float> r{3072, 256, {256, 8}};
/// block_sparse_moe.gate.weight [N×d] = router.weight, block_sparse_moe.e_score_correction_bias [N] =
/// router.selection_bias
template <float_or_double T, class Weighting = renormalized>
using minimax_m2 = router<linear<T, sigmoid>, biased<T, top_k<>>, Weighting>;

/// gpt-oss: logits with a bias, the top k of them, softmax over those k. There are no probabilities of all experts: a
/// loss that reads them is an hmoe::error; losses::of_softmax around it takes the softmax of the logits.
///   gpt_oss<float> r{2880, 128, 4};
/// mlp.router.weight [N×d] = router.weight, mlp.router.bias [N] = router.bias
template <float_or_double T, class Weighting = softmax_over_selected>
using gpt_oss = router<linear<T, unscored, true>, top_k<>, Weighting>;

/// sparsemixer with ε = 0.01, PhiMoE's router_jitter_noise, unless another is given.
struct phimoe_mixer : sparsemixer {
  constexpr phimoe_mixer(double epsilon_ = 0.01) noexcept : sparsemixer{epsilon_} {}
};

/// PhiMoE (Phi-3.5-MoE): SparseMixer-v2, sampled where the pass is given a noise source, as in training.
///   phimoe<float> r{4096, 16};
/// block_sparse_moe.gate.weight [N×d] = router.weight. With another ε both policies need it: {4096, 16, {e}, {e}}.
template <float_or_double T> using phimoe = router<linear<T, unscored>, phimoe_mixer, phimoe_mixer>;

/// GraniteMoE: the top k of the logits, softmax over those k; as gpt-oss without a bias.
///   granite_moe<float> r{1536, 40, 8};
/// block_sparse_moe.router.layer.weight [N×d] = router.weight
template <float_or_double T, class Weighting = softmax_over_selected>
using granite_moe = router<linear<T, unscored>, top_k<>, Weighting>;

/// JetMoE, its feed-forward layers: as GraniteMoE. The layer's output has a bias [d] of its own, which the caller adds.
///   jetmoe<float> r{2048, 8, 2};
/// mlp.router.layer.weight [N×d] = router.weight
template <float_or_double T, class Weighting = softmax_over_selected> using jetmoe = granite_moe<T, Weighting>;

/// Llama-4: the top k = 1 of the logits; experts read σ(logit)·x; one shared expert with weight 1.
///   llama4<float> r{5120, 16, 1};
/// feed_forward.router.weight [N×d] = router.weight
template <float_or_double T, class Weighting = sigmoid_of_logit>
using llama4 = router<linear<T, unscored>, top_k<>, on_input_side<Weighting>, always_on>;

/// Switch Transformer: softmax, top 1, weight = its probability; the router's input is jittered by 1 ± 1e-2 when the
/// pass is given a noise source. Capacity is a matter of dispatch.
///   switch_transformer<float> r{768, 8};
/// mlp.router.classifier.weight [N×d] = router.weight
template <float_or_double T, class Weighting = raw>
using switch_transformer = router<jittered<linear<T>>, top_k<1>, Weighting>;

/// LongCat-Flash: softmax over FFN and zero-computation experts, a bias for the choice only, weights times a scale
/// without renormalisation. The zero-computation experts are experts::identity, last in the set.
///   longcat_flash<float> r{6144, 512 + 256, {512 + 256, 12}, {.factor = 6}};
/// mlp.router.classifier.weight [N×d] = router.weight, mlp.router.e_score_correction_bias [N] = router.selection_bias
template <float_or_double T, class Weighting = raw>
using longcat_flash = router<linear<T>, biased<T, top_k<>>, scaled<Weighting>>;

/// HMoE (arXiv 2408.10681) with top-k routing: softmax, k = 2, renormalised.
///   hmoe_top_k<float> r{768, 8, 2};
template <float_or_double T, class Weighting = renormalized> using hmoe_top_k = router<linear<T>, top_k<>, Weighting>;

/// HMoE with top-p routing: softmax, p = 0.6, renormalised.
///   hmoe_top_p<float> r{768, 8, 0.6};
template <float_or_double T, class Weighting = renormalized> using hmoe_top_p = router<linear<T>, top_p, Weighting>;

} // namespace hmoe::routing::presets

#include <hmoe/core/macros_on.hpp>
