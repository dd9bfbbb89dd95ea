// SPDX-License-Identifier: MIT
#include "policies.hpp"

#include <algorithm>
#include <array>

namespace language_model {
namespace {

constexpr std::array routers{
    policy_kind{"top-k", ":K", "the K most probable experts (softmax, renormalised)", 1, 1},
    policy_kind{"top-p", ":P", "the shortest prefix with probability P", 1, 1},
    policy_kind{"threshold", ":MINIMUM", "every expert of at least that probability", 1, 1},
    policy_kind{"cumulative-threshold", ":LIMIT[:MOST]", "experts while the sum before them is below it (XMoE)", 1, 2},
    policy_kind{"group-limited", ":GROUPS:KEPT:K", "the K best of the KEPT best of GROUPS equal groups", 3, 3},
    policy_kind{"two-level", ":GROUPS:KEPT:K", "the K best of each of the KEPT best groups", 3, 3},
    policy_kind{"mohge", ":GROUPS:KEPT:K", "the same, groups scored by a router of their own (MoHGE)", 3, 3},
    policy_kind{"cost-aware-top-p", ":P[:BUDGET]", "most probability per width, at most BUDGET hidden units", 1, 2},
    policy_kind{"controlled-top-p", ":TARGET[:START]", "top-p whose p aims at TARGET experts a token (DTop-p)", 1, 2},
    policy_kind{"sign-bias", ":K[:RATE]", "top-k with a selection bias, sign rule on tokens (DeepSeek)", 1, 2},
    policy_kind{"sign-bias-flops", ":K[:RATE]", "the same, load counted in FLOPs", 1, 2},
    policy_kind{"proportional-bias", ":K[:RATE]", "with the proportional rule on tokens (LongCat)", 1, 2},
    policy_kind{"proportional-bias-flops", ":K[:RATE]", "the same, load counted in FLOPs", 1, 2},
    policy_kind{"longcat-flash", ":K[:FACTOR[:RATE]]", "the proportional rule, weights as they are times FACTOR", 1, 3},
    policy_kind{"deepseek-v2", ":GROUPS:KEPT:K[:FACTOR]", "group-limited, weights as they are times FACTOR", 3, 4},
    policy_kind{"deepseek-v3", ":GROUPS:KEPT:K[:FACTOR[:RATE]]", "sigmoid, sign bias, groups, scaled weights", 3, 5},
    policy_kind{"sigmoid-top-k", ":K[:FACTOR]", "sigmoid scores, renormalised and scaled", 1, 2},
    policy_kind{"sqrt-softplus-top-k", ":K[:FACTOR]", "√softplus scores, renormalised and scaled", 1, 2},
    policy_kind{"raw-top-k", ":K", "weights are the probabilities as they are (OLMoE)", 1, 1},
    policy_kind{"raw-top-p", ":P", "top-p with the probabilities as they are (Dynamic MoE)", 1, 1},
    policy_kind{"gpt-oss", ":K", "logits with a bias, softmax over the K chosen", 1, 1},
    policy_kind{"llama4", "[:K]", "sigmoid of the logit, on the experts' input", 0, 1},
    policy_kind{"switch", "[:EPSILON]", "the best expert, input of the router jittered in training", 0, 1},
    policy_kind{"relu", ":K", "every positive score (ReMoE); K is the aim of loss=adaptive-l1", 1, 1},
    policy_kind{"noisy-top-k", ":K", "learned noise on the logits in training (Shazeer)", 1, 1},
    policy_kind{"gumbel-top-k", ":K[:SCALE]", "Gumbel noise on the logits in training", 1, 2},
    policy_kind{"jittered-top-k", ":K[:EPSILON]", "jitter on the router's input in training", 1, 2},
    policy_kind{"cosine-top-k", ":K[:TEMPERATURE]", "cosine scores with a learned temperature (X-MoE)", 1, 2},
    policy_kind{"gate-residual", ":K", "logits of the previous layer join in (MoE++)", 1, 1},
    policy_kind{"hash", ":K", "by token id alone", 1, 1},
    policy_kind{"hash-table", ":K", "by token id, ids dealt out in turn: the more frequent ones come first", 1, 1},
    policy_kind{"expert-choice", ":FACTOR", "experts choose tokens; sees the whole batch", 1, 1},
    policy_kind{"sinkhorn", ":K", "K by optimal transport (S-BASE); sees the whole batch", 1, 1},
    policy_kind{"balanced", "", "equal loads exactly (BASE); sees the whole batch", 0, 0},
};

constexpr std::array shared{
    policy_kind{"always-on", ":W[/W…]", "an expert of width W (and others) for every token, weight 1 (DeepSeek)", 1, 1},
    policy_kind{"sigmoid-gated", ":W[/W…]", "with weight σ(v·x), v learned (Qwen2-MoE)", 1, 1},
};

constexpr const char* normalization = "to-k|to-one";
constexpr const char* gates = "renormalized|selected|probabilities";

constexpr std::array losses{
    policy_kind{"load-balance", ":C", "N Σ f P", 1, 1, normalization},
    policy_kind{"parameter-penalty", ":C", "HMoE's: N Σ width f P, in units of the mean width", 1, 1, "mean|raw|max"},
    policy_kind{"router-entropy", ":C", "mean entropy of the probabilities", 1, 1},
    policy_kind{"z", ":C", "squared log-sum-exp of the logits", 1, 1},
    policy_kind{"first-choice-load-balance", ":C", "f of the most probable choice only (GShard)", 1, 1},
    policy_kind{"sequence-balance", ":C", "load balance within each window (DeepSeek-V3)", 1, 1, "to-one|to-k"},
    policy_kind{"global-load-balance", ":C", "f of the whole step, which here is one batch", 1, 1, normalization},
    policy_kind{"importance", ":C", "CV² of the experts' weights", 1, 1, gates},
    policy_kind{"load", ":C", "CV² of a smooth load", 1, 1},
    policy_kind{"noisy-load", ":C", "the same with the noise of router=noisy-top-k", 1, 1},
    policy_kind{"group-balance", ":C", "MoHGE's, over runs of equal width", 1, 1},
    policy_kind{"intra-group-balance", ":C", "MoHGE's within these groups", 1, 1, gates},
    policy_kind{"zero-cost-balance", ":C", "MoE++'s, with η = 1 for experts that compute", 1, 1},
    policy_kind{"compute-cost", ":C", "expected width of the probabilities", 1, 1},
    policy_kind{"adaptive-l1", ":C", "ReMoE's, with router=relu; C is where its λ starts", 1, 1},
};

/// "importance:C[:renormalized|…]"
std::string written(const policy_kind& kind) {
  const std::string options = kind.options;
  return std::string(kind.name) + kind.values + (options.empty() ? "" : "[:" + options + "]");
}

} // namespace

std::span<const policy_kind> router_kinds() { return routers; }
std::span<const policy_kind> shared_kinds() { return shared; }
std::span<const policy_kind> loss_kinds() { return losses; }

const policy_kind* find_kind(std::span<const policy_kind> kinds, std::string_view name) {
  const auto found = std::ranges::find(kinds, name, [](const policy_kind& k) { return std::string_view(k.name); });
  return found == kinds.end() ? nullptr : &*found;
}

std::string usage(std::span<const policy_kind> kinds) {
  std::string list;
  for (const auto& kind : kinds)
    list += (list.empty() ? "" : ", ") + written(kind);
  return list;
}

std::string describe(std::span<const policy_kind> kinds) {
  std::size_t widest = 0;
  for (const auto& kind : kinds)
    widest = std::max(widest, written(kind).size());
  std::string list;
  for (const auto& kind : kinds) {
    std::string line = written(kind);
    line.resize(widest + 2, ' ');
    list += "  " + line + kind.meaning + "\n";
  }
  return list;
}

} // namespace language_model
