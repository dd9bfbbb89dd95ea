// SPDX-License-Identifier: MIT
#include "packed.hpp"

#include <hmoe/experts/gating.hpp>

#include "../dispatch/held_experts.hpp"

#include <utility>

namespace benchmarks {

namespace {

namespace formats = hmoe::backends::formats;

/// One scale for all activations of a token.
constexpr auto by_row = formats::activation_scale::row;

template <class Format> std::unique_ptr<any_experts> packed(const mapped_weights& weights) {
  hmoe::expert_set set{hmoe::backends::simd<>::pack<Format>(weights, hmoe::experts::silu{})};
  return std::make_unique<held_experts<decltype(set), false>>(std::move(set));
}

} // namespace

const std::vector<peer_format>& peer_formats() {
  static const std::vector<peer_format> all{
      {"f32", multiplier::f32, 4, packed<formats::f32>},
      {"bf16", multiplier::bf16, 2, packed<formats::bf16>},
      {"q8", multiplier::int8, 8.5 / 8, packed<formats::q8>},
      {"q8_channel", multiplier::int8, 1, packed<formats::q8_channel>},
      {"q8_row", multiplier::int8, 1, packed<formats::basic_q8_channel<by_row>>},
      {"q4", multiplier::int8, 4.5 / 8, packed<formats::q4>},
      {"q4_row", multiplier::int8, 4.5 / 8, packed<formats::basic_q4<32, by_row>>},
      {"mxfp4", multiplier::int8, 4.25 / 8, packed<formats::mxfp4>},
  };
  return all;
}

} // namespace benchmarks
