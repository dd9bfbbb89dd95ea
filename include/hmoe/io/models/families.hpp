// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/io/models/families/dbrx.hpp>
#include <hmoe/io/models/families/deepseek.hpp>
#include <hmoe/io/models/families/deepseek_v4.hpp>
#include <hmoe/io/models/families/ernie4_5_moe.hpp>
#include <hmoe/io/models/families/gemma4.hpp>
#include <hmoe/io/models/families/gpt_oss.hpp>
#include <hmoe/io/models/families/granitemoe.hpp>
#include <hmoe/io/models/families/hunyuan_v1_moe.hpp>
#include <hmoe/io/models/families/jetmoe.hpp>
#include <hmoe/io/models/families/llama4.hpp>
#include <hmoe/io/models/families/longcat_flash.hpp>
#include <hmoe/io/models/families/mixtral.hpp>
#include <hmoe/io/models/families/nemotron_h.hpp>
#include <hmoe/io/models/families/qwen_moe.hpp>
#include <hmoe/io/models/families/switch_transformers.hpp>

namespace hmoe::io::models {

template <model_family... Families> struct family_list {};

/// All families that this library reads: what load_layer looks through for a config.json's model_type.
using families =
    family_list<mixtral, minimax_m2, phimoe, qwen2_moe, qwen3_moe, qwen3_next, olmoe, deepseek_v2, deepseek_v3,
                deepseek_v4, deepseek_v4_hash, gpt_oss, llama4, switch_transformers, granitemoe, ernie4_5_moe,
                hunyuan_v1_moe, dbrx, jetmoe, longcat_flash, gemma4, nemotron_h, nemotron_h_latent>;

} // namespace hmoe::io::models
