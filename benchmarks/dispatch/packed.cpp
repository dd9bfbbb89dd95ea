// SPDX-License-Identifier: MIT
#include "held_experts.hpp"

namespace benchmarks {

namespace {
template <class Format> std::unique_ptr<any_experts> packed(const dispatch_shape& shape) {
  auto set = hmoe::backends::simd<>::pack<Format>(make_glu_set(shape));
  return std::make_unique<held_experts<decltype(set), false>>(std::move(set));
}
} // namespace

std::unique_ptr<any_experts> make_packed_experts(const dispatch_shape& shape, const std::string& format) {
  namespace formats = hmoe::backends::formats;
  hmoe::require(shape.experts() == shape.widths.size(), "packed experts of several kinds are not measured");
  if (format == "packed_f32")
    return packed<formats::f32>(shape);
  if (format == "bf16")
    return packed<formats::bf16>(shape);
  if (format == "q8")
    return packed<formats::q8>(shape);
  if (format == "q4")
    return packed<formats::q4>(shape);
  hmoe::fail("no format of weights is called \"" + format + "\"");
}

} // namespace benchmarks
