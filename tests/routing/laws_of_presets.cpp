// SPDX-License-Identifier: MIT
// The laws of routers on every preset.
#include <hmoe/routing/presets.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <doctest/doctest.h>

namespace presets = hmoe::routing::presets;

namespace {
constexpr std::size_t d = 5, experts = 8;

template <class Router> void check(const Router& router, const hmoe::testing::router_options& options = {}) {
  CHECK(hmoe::testing::check_router(router, options).text() == "");
}
} // namespace

TEST_CASE("presets keep the laws of routers") {
  check(presets::mixtral<double>{d, experts, 2}); // the types of qwen3_moe and hmoe_top_k
  check(presets::qwen3_moe<double>{d, experts, 4});
  check(presets::hmoe_top_k<double>{d, experts, 2});
  check(presets::hmoe_top_p<double>{d, experts, 0.6});
  check(presets::olmoe<double>{d, experts, 4});
  check(presets::qwen2_moe<double>{d, experts, 3});
  check(presets::gpt_oss<double>{d, experts, 3});
  check(presets::llama4<double>{d, experts, 1});
  check(presets::switch_transformer<double>{d, experts});
  check(presets::switch_transformer<double>{d, experts}, {.noise = hmoe::noise_source{hmoe::seed{3}, 7}});
  check(presets::longcat_flash<double>{d, experts, {experts, 3}, {.factor = 6}});
  using mixer = hmoe::routing::sparsemixer;
  using unscored = hmoe::routing::linear<double, hmoe::routing::unscored>;
  check(hmoe::routing::router<unscored, mixer, mixer>{d, experts, {0.01}, {0.01}}); // phimoe
  check(presets::deepseek_v4<double>{d, experts, {experts, 3}, {.factor = 1.5}});
  check(presets::deepseek_v2<double>{d, experts, {.groups = 4, .kept = 2, .k = 3}, {.factor = 4}});
  check(presets::deepseek_v3<double>{
      d, experts, {experts, {.groups = 4, .kept = 2, .k = 3}}, {.factor = 2.5, .inner = {1e-20}}});
}
