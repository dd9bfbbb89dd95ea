// SPDX-License-Identifier: MIT
// What layers do that know only one width: every expert is as wide as the widest, filled up with zeros. The rest is
// hmoe's own, packed weights included, so the difference is the padding alone.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/scattered.hpp>

#include "../support/hmoe.hpp"
#include "competitors.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace benchmarks::competitors {

namespace {

void copy_into(hmoe::matrix_view<const float> from, hmoe::matrix_view<float> to) {
  for (std::size_t r = 0; r < from.rows(); ++r)
    std::ranges::copy(from.row(r), to.row(r).begin());
}

auto packed(const glu_bank& bank, const hmoe::routing::top_k_router<float>& router) {
  return hmoe::moe_layer{hmoe::expert_set{hmoe::backends::simd<>::pack(bank)}, router, hmoe::dispatch::scattered{}};
}

class padded_runner final : public runner {
public:
  explicit padded_runner(const model& weights) {
    const layer_shape& shape = weights.shape();
    const std::vector<std::size_t> widths(shape.experts(), std::ranges::max(shape.widths));
    for (std::size_t copy = 0; copy < weights.copy_count(); ++copy) {
      glu_bank bank{shape.d_model, widths};
      for (std::size_t e = 0; e < shape.experts(); ++e) {
        copy_into(weights.bank(copy).gate(e), bank.gate(e));
        copy_into(weights.bank(copy).up(e), bank.up(e));
        copy_into(weights.bank(copy).down(e), bank.down(e));
      }
      layers_.push_back(packed(bank, std::get<top_k_layer>(weights.layer(copy)).router()));
    }
  }
  void set_threads(std::size_t threads) override {
    cpu_.emplace(hmoe::backends::simd<>{}, hmoe::executors::openmp{threads});
  }
  [[nodiscard]] std::size_t copies() const override { return layers_.size(); }
  void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) override {
    layers_[copy].forward(*cpu_, input.x.view(), y);
  }

private:
  std::vector<decltype(packed(std::declval<glu_bank>(), std::declval<hmoe::routing::top_k_router<float>>()))> layers_;
  std::optional<hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>> cpu_;
};

} // namespace

subject padded() {
  return {"padded", f32, "hmoe's simd backend",
          [](const layer_shape& shape) { return !shape.mixed() && shape.top_p == 0 && shape.unequal(); },
          [](const model& weights) { return std::make_unique<padded_runner>(weights); }};
}

} // namespace benchmarks::competitors
