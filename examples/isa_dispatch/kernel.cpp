// SPDX-License-Identifier: MIT
// Compiled once per instruction-set level: backends::simd<> is that of the level.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "feed_forward.hpp"

#include <utility>

using namespace hmoe;

namespace {

auto make_layer(std::size_t d_model) {
  experts::glu_bank<float, experts::silu> bank{
      d_model, widths::arithmetic{.count = 8, .total = 16 * d_model, .first = 9, .last = 23}};
  routing::top_k_router<float> router{d_model, bank.size(), /*k=*/2};
  moe_layer layer{expert_set{std::move(bank)}, std::move(router), dispatch::sorted{}};
  layer.initialize(seed{42});
  return layer;
}

class simd_feed_forward : public feed_forward {
public:
  explicit simd_feed_forward(std::size_t d_model) : layer_(make_layer(d_model)) {}
  void run(matrix_view<const float> x, matrix_view<float> y) override { layer_.forward(cpu_, x, y); }

private:
  decltype(make_layer(0)) layer_;
  context<backends::simd<>> cpu_;
};

} // namespace

std::unique_ptr<feed_forward> HMOE_ISA::make_feed_forward(std::size_t d_model) {
  require(d_model > 0, "a layer of width 0");
  return std::make_unique<simd_feed_forward>(d_model);
}
