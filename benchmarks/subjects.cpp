// SPDX-License-Identifier: MIT
// The list of what benchmarks/layer measures. A further subject, for instance packed weights of another type, is a
// runner (as in support/hmoe.hpp) and a line here: its name, its data_type, which shapes it takes, and how it is made
// of the model's f32 weights.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>

#include "competitors/competitors.hpp"
#include "support/hmoe.hpp"
#include "support/subject.hpp"

#include <string>

namespace benchmarks {

namespace {

const std::string hmoe_version = "hmoe " + std::to_string(HMOE_VERSION_MAJOR) + "." +
                                 std::to_string(HMOE_VERSION_MINOR) + "." + std::to_string(HMOE_VERSION_PATCH);

template <class Runner> subject hmoe_subject(std::string name, data_type type) {
  return {std::move(name), std::move(type), hmoe_version, [](const layer_shape&) { return true; },
          [](const model& weights) { return std::make_unique<Runner>(weights); }};
}

} // namespace

std::vector<subject> subjects() {
  return {
      hmoe_subject<hmoe_runner<hmoe::backends::simd<>>>("simd", f32),
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
