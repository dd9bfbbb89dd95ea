// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>
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
#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/model_config.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace hmoe::io::models {

template <model_family... Families> struct family_list {};

/// All families that this library reads: what visit_family looks through for a config.json's model_type.
using families =
    family_list<mixtral, minimax_m2, phimoe, qwen2_moe, qwen3_moe, qwen3_next, olmoe, deepseek_v2, deepseek_v3,
                deepseek_v4, deepseek_v4_hash, gpt_oss, llama4, switch_transformers, granitemoe, ernie4_5_moe,
                hunyuan_v1_moe, dbrx, jetmoe, longcat_flash, gemma4, nemotron_h, nemotron_h_latent>;

namespace detail {
template <class F, class First, class... Others>
[[nodiscard]] auto visit_family(family_list<First, Others...>, const model_config& config, std::size_t layer, F& f) {
  std::optional<decltype(f.template operator()<First>())> result;
  std::string known;
  const auto try_family = [&]<class Family>(std::type_identity<Family>) {
    if (!std::string_view(known).ends_with(Family::model_type))
      known.append(known.empty() ? "" : ", ").append(Family::model_type);
    if (!result && is_of_family<Family>(config, layer))
      result.emplace(f.template operator()<Family>());
  };
  const std::string& family = config.family();
  try_family(std::type_identity<First>{});
  (try_family(std::type_identity<Others>{}), ...);
  require(result.has_value(), config.name(), ": no family is known for the model_type ", in_quotes(family),
          "; known are ", known);
  return std::move(*result);
}
} // namespace detail

/// f.template operator()<Family>() of the family that layer `layer` of the model is of; it returns the same type for
/// all of them. hmoe::error where none is known.
template <class F> [[nodiscard]] auto visit_family(const model_config& config, std::size_t layer, F&& f) {
  return detail::visit_family(families{}, config, layer, f);
}

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
