// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include <variant>

/// The types of the layers that are measured.
namespace benchmarks {

using glu_bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
using mlp_bank = hmoe::experts::mlp_bank<float, hmoe::experts::gelu>;
using identity_bank = hmoe::experts::identity_bank<float>;

using top_k_layer = hmoe::moe_layer<hmoe::expert_set<glu_bank>, hmoe::routing::top_k_router<float>>;
using top_p_layer = hmoe::moe_layer<hmoe::expert_set<glu_bank>, hmoe::routing::top_p_router<float>>;
using mixed_layer =
    hmoe::moe_layer<hmoe::expert_set<glu_bank, mlp_bank, identity_bank>, hmoe::routing::top_k_router<float>>;
using any_layer = std::variant<top_k_layer, top_p_layer, mixed_layer>;

} // namespace benchmarks
