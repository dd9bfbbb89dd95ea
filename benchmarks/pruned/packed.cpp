// SPDX-License-Identifier: MIT
#include "packed.hpp"

#include <hmoe/experts/gating.hpp>

#include "../dispatch/held_experts.hpp"
#include "synthetic_weights.hpp"

#include <string>
#include <utility>

namespace benchmarks {

namespace {

template <class Format, class Gate>
std::unique_ptr<any_experts> packed(const synthetic_weights& weights, const Gate& gate) {
  hmoe::expert_set set{hmoe::backends::simd<>::pack<Format>(weights, gate)};
  return std::make_unique<held_experts<decltype(set), false>>(std::move(set));
}

template <class Format>
std::unique_ptr<any_experts> packed(const pruned_shape& shape, const synthetic_weights& weights) {
  return shape.gpt_oss ? packed<Format>(weights, hmoe::experts::gpt_oss_gate{})
                       : packed<Format>(weights, hmoe::experts::silu{});
}

} // namespace

std::unique_ptr<any_experts> make_synthetic_experts(const pruned_shape& shape, std::string_view format,
                                                    const std::vector<std::size_t>& widths,
                                                    const std::vector<std::size_t>& kept) {
  namespace formats = hmoe::backends::formats;
  const synthetic_weights weights(shape, widths, kept);
  if (format == "f32")
    return packed<formats::f32>(shape, weights);
  if (format == "bf16")
    return packed<formats::bf16>(shape, weights);
  if (format == "q8")
    return packed<formats::q8>(shape, weights);
  if (format == "q4")
    return packed<formats::q4>(shape, weights);
  hmoe::fail("no format of weights is called \"" + std::string(format) + "\"; there are f32, bf16, q8, q4");
}

} // namespace benchmarks
