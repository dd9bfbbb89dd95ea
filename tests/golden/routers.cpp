// SPDX-License-Identifier: MIT
// Presets against what the released classes computed: see scripts/golden.
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/presets.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace presets = hmoe::routing::presets;
using nlohmann::json;

namespace {
json read(const std::string& model) {
  const std::string path = std::string(HMOE_GOLDEN_DIRECTORY) + "/router_" + model + ".json";
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), "cannot open ", path);
  return json::parse(file);
}

/// Gives the router the file's tensors (ours are named otherwise: `names` says how) and compares ids and weights.
template <class Router>
void compare(Router router, const json& golden, const std::vector<std::pair<std::string, std::string>>& names) {
  const auto& parameters = golden["parameters"];
  REQUIRE(parameters.size() == names.size());
  std::size_t found = 0;
  router.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> view) {
    for (const auto& [ours, theirs] : names) {
      if (info.name != ours)
        continue;
      const json& tensor = parameters.at(theirs);
      const bool vector = tensor[0].is_number();
      REQUIRE(tensor.size() == (vector ? view.cols() : view.rows()));
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (std::size_t c = 0; c < view.cols(); ++c)
          view(r, c) = (vector ? tensor.at(c) : tensor.at(r).at(c)).template get<float>();
      ++found;
    }
  });
  REQUIRE(found == names.size());

  const json &rows = golden["x"], &ids = golden["ids"], &weights = golden["weights"];
  const std::size_t tokens = rows.size(), shared = router.size() - router.routed();
  hmoe::matrix<float> x(tokens, router.d_model());
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t c = 0; c < x.cols(); ++c)
      x(t, c) = rows.at(t).at(c).get<float>();
  hmoe::router_trace<float> trace;
  hmoe::assignment<float> assigned;
  trace.resize(tokens, router.routed(), router.saved_per_token(), false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);
  REQUIRE(tokens > 0);
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto chosen = assigned.experts_of(t);
    REQUIRE(chosen.size() == ids.at(t).size() + shared);
    for (std::size_t i = 0; i < ids.at(t).size(); ++i) {
      CHECK(chosen[i] == ids.at(t).at(i).get<hmoe::index_t>());
      CHECK(double{assigned.weights_of(t)[i]} == doctest::Approx(weights.at(t).at(i).get<double>()).epsilon(2e-6));
    }
  }
}
constexpr std::size_t d = 6, n = 12;
} // namespace

TEST_CASE("routers choose and weight as the released classes do") {
  SUBCASE("mixtral") {
    const json g = read("mixtral");
    compare(presets::mixtral<float>{d, n, g["k"].get<std::size_t>()}, g, {{"router.weight", "weight"}});
  }
  SUBCASE("qwen2_moe") {
    const json g = read("qwen2_moe");
    compare(presets::qwen2_moe<float>{d, n, g["k"].get<std::size_t>()}, g, {{"router.weight", "weight"}});
  }
  SUBCASE("qwen3_moe") {
    const json g = read("qwen3_moe");
    compare(presets::qwen3_moe<float>{d, n, g["k"].get<std::size_t>()}, g, {{"router.weight", "weight"}});
  }
  SUBCASE("olmoe") {
    const json g = read("olmoe");
    compare(presets::olmoe<float>{d, n, g["k"].get<std::size_t>()}, g, {{"router.weight", "weight"}});
  }
  SUBCASE("deepseek_v2") {
    const json g = read("deepseek_v2");
    compare(
        presets::deepseek_v2<float>{
            d, n, {.groups = g["groups"], .kept = g["kept"], .k = g["k"]}, {.factor = g["scale"]}},
        g, {{"router.weight", "weight"}});
  }
  SUBCASE("deepseek_v3") {
    const json g = read("deepseek_v3");
    compare(presets::deepseek_v3<float>{d,
                                        n,
                                        {n, {.groups = g["groups"], .kept = g["kept"], .k = g["k"]}},
                                        {.factor = g["scale"], .inner = {1e-20}}},
            g, {{"router.weight", "weight"}, {"router.selection_bias", "e_score_correction_bias"}});
  }
  SUBCASE("gpt_oss") {
    const json g = read("gpt_oss");
    compare(presets::gpt_oss<float>{d, n, g["k"].get<std::size_t>()}, g,
            {{"router.weight", "weight"}, {"router.bias", "bias"}});
  }
  SUBCASE("llama4") {
    const json g = read("llama4");
    compare(presets::llama4<float>{d, n, g["k"].get<std::size_t>()}, g, {{"router.weight", "weight"}});
  }
  SUBCASE("switch_transformer") {
    compare(presets::switch_transformer<float>{d, n}, read("switch_transformer"),
            {{"router.weight", "classifier.weight"}});
  }
  SUBCASE("longcat_flash") {
    const json g = read("longcat_flash");
    compare(presets::longcat_flash<float>{d, n, {n, g["k"].get<std::size_t>()}, {.factor = g["scale"]}}, g,
            {{"router.weight", "classifier.weight"}, {"router.selection_bias", "e_score_correction_bias"}});
  }
}
