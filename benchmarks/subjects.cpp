// SPDX-License-Identifier: MIT
// The list of what benchmarks/layer measures. A further subject, for instance packed weights of another type, is a
// runner (as in support/hmoe.hpp) and a line here: its name, its data_type, which shapes it takes, and how it is made
// of the model's f32 weights.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>

#include "competitors/competitors.hpp"
#include "support/hmoe.hpp"
#include "support/packed.hpp"
#include "support/subject.hpp"

#include <string>

namespace benchmarks {

namespace {

namespace formats = hmoe::backends::formats;

const std::string hmoe_version = "hmoe " + std::to_string(HMOE_VERSION_MAJOR) + "." +
                                 std::to_string(HMOE_VERSION_MINOR) + "." + std::to_string(HMOE_VERSION_PATCH);

template <class Runner> subject hmoe_subject(std::string name, data_type type) {
  return {std::move(name), std::move(type), hmoe_version, [](const layer_shape&) { return true; },
          [](const model& weights) { return std::make_unique<Runner>(weights); }};
}

} // namespace

std::vector<subject> subjects() {
  return {
      hmoe_subject<packed_runner<formats::f32>>("simd", f32),
      hmoe_subject<packed_runner<formats::f16>>("simd", {"f16", multiplier::f32, 2, 2e-3}),
      hmoe_subject<packed_runner<formats::bf16>>("simd", {"bf16", multiplier::bf16, 2, 2e-2}),
      hmoe_subject<packed_runner<formats::fp8>>("simd", {"fp8", multiplier::bf16, 8.25 / 8, 8e-2}),
      hmoe_subject<packed_runner<formats::q8>>("simd", {"q8", multiplier::int8, 8.5 / 8, 5e-2}),
      hmoe_subject<packed_runner<formats::q8_channel>>("simd", {"q8_channel", multiplier::int8, 1, 8e-2}),
      hmoe_subject<packed_runner<formats::q4>>("simd", {"q4", multiplier::int8, 4.5 / 8, 0.4}),
      hmoe_subject<packed_runner<formats::mxfp4>>("simd", {"mxfp4", multiplier::int8, 4.25 / 8, 0.4}),
      hmoe_subject<hmoe_runner<hmoe::backends::simd<>>>("simd_unpacked", f32),
      hmoe_subject<hmoe_runner<hmoe::backends::eigen>>("eigen", f32),
      competitors::padded(),
      competitors::eigen_per_expert(),
#ifdef HMOE_BENCHMARKS_OPENBLAS
      competitors::openblas_per_expert(),
#endif
#ifdef HMOE_BENCHMARKS_ONEDNN
      competitors::onednn_per_expert(),
#endif
  };
}

} // namespace benchmarks
