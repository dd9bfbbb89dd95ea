// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

/// The types that main.cpp and kernels.cu share.
using layer_type = hmoe::moe_layer<hmoe::expert_set<hmoe::experts::glu_bank<float, hmoe::experts::silu>>,
                                   hmoe::routing::top_p_router<float>>;
using objective_type = hmoe::objective<hmoe::losses::parameter_penalty, hmoe::losses::router_entropy>;
