// SPDX-License-Identifier: MIT
// Every router and every loss that a variant can name trains, and resumes where it stopped.
#include <hmoe/core/error.hpp>

#include "feed_forwards.hpp"
#include "policies.hpp"
#include "support.hpp"
#include "trainer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>

namespace language_model {
namespace {

/// Values for a layer of 4 experts.
std::string example_of(const std::string& router) {
  static const std::map<std::string, std::string> values{{"top-p", ":0.6"},
                                                         {"threshold", ":0.25"},
                                                         {"cumulative-threshold", ":0.6:3"},
                                                         {"group-limited", ":2:1:2"},
                                                         {"two-level", ":2:1:2"},
                                                         {"cost-aware-top-p", ":0.6:40"},
                                                         {"deepseek-v3", ":2:1:2:2.5:0.01"},
                                                         {"controlled-top-p", ":1.5:0.4"},
                                                         {"balanced", ""},
                                                         {"switch", ""},
                                                         {"llama4", ""}};
  const auto found = values.find(router);
  return router + (found == values.end() ? ":2" : found->second);
}

run_config with_variant(run_config config, const std::string& description) {
  config.what = parse_variant("experts=4,total=64," + description);
  return config;
}

checkpoint train_steps(trainer& t, std::size_t until) {
  while (t.steps() < until)
    t.step();
  return t.save();
}

bool same_bits(const checkpoint& a, const checkpoint& b) {
  return std::ranges::equal(a.tensors, b.tensors, [](const auto& x, const auto& y) {
    return x.name == y.name && x.values.size() == y.values.size() &&
           std::memcmp(x.values.data(), y.values.data(), x.values.size() * sizeof(float)) == 0;
  });
}

TEST_CASE("every router trains and is the same after its JSON form") {
  const small_world world;
  for (const auto& kind : router_kinds()) {
    const std::string router = example_of(kind.name);
    CAPTURE(router);
    const run_config config = with_variant(world.config, "router=" + router + ",loss=load-balance:0.01");
    const auto json = to_json(config);
    CHECK(to_json(run_config_from_json(json)) == json);
    CHECK((run_config_from_json(json).what.router == config.what.router));
    trainer t(config, world.text, 1);
    const checkpoint end = train_steps(t, 3);
    CHECK(std::isfinite(t.last_loss()));
    for (const auto& tensor : end.tensors)
      CHECK(std::ranges::all_of(tensor.values, [](float x) { return std::isfinite(x); }));
  }
}

TEST_CASE("every loss trains and reaches the router") {
  const small_world world;
  trainer without(with_variant(world.config, "router=noisy-top-k:2"), world.text, 1);
  trainer without_relu(with_variant(world.config, "router=relu:2"), world.text, 1);
  const checkpoint plain = train_steps(without, 3);
  const checkpoint plain_relu = train_steps(without_relu, 3);
  for (const auto& kind : loss_kinds()) {
    CAPTURE(kind.name);
    const bool relu = std::string(kind.name) == "adaptive-l1";
    trainer t(with_variant(world.config, (relu ? "router=relu:2,loss=" : "router=noisy-top-k:2,loss=") +
                                             std::string(kind.name) + ":0.1"),
              world.text, 1);
    const checkpoint end = train_steps(t, 3);
    CHECK(std::isfinite(t.last_loss()));
    CHECK_FALSE(same_bits(end, relu ? plain_relu : plain));
  }
}

TEST_CASE("what routers keep between steps moves, and a resumed run goes on with it bit for bit") {
  const small_world world;
  for (const char* router : {"sign-bias-flops:2:0.01", "proportional-bias:2:0.01", "controlled-top-p:1.5",
                             "relu:2,loss=adaptive-l1:0.001", "noisy-top-k:2", "gate-residual:2", "hash:2"}) {
    CAPTURE(router);
    const run_config config = with_variant(world.config, std::string("router=") + router);
    trainer uninterrupted(config, world.text, 1);
    trainer stopped(config, world.text, 1);
    save_checkpoint(world.folder / "c", train_steps(stopped, 7));
    trainer resumed(config, world.text, 1);
    resumed.restore(load_checkpoint(world.folder / "c"));
    const checkpoint end = train_steps(uninterrupted, 15);
    const checkpoint other = train_steps(resumed, 15);
    CHECK(same_bits(end, other));
    CHECK(end.state.at("layers") == other.state.at("layers"));

    const std::string name = router;
    if (name.starts_with("controlled") || name.starts_with("relu"))
      CHECK(end.state.at("layers") != trainer(config, world.text, 1).save().state.at("layers"));
    if (name.find("bias") != std::string::npos) {
      const auto& bias = end.find("blocks.0.feed_forward.router.selection_bias", 4);
      CHECK(std::ranges::any_of(bias, [](float b) { return b != 0.0F; }));
    }
  }
}

TEST_CASE("controlled-top-p comes to the number of experts that it aims at") {
  const small_world world;
  run_config config = with_variant(world.config, "router=controlled-top-p:1.5:0.9");
  trainer t(config, world.text, 1);
  const auto experts_so_far = [&](std::size_t step) {
    const auto saved = train_steps(t, step);
    double sum = 0;
    for (const auto& count : saved.state.at("totals").at("activations").at(0))
      sum += count.get<double>();
    return sum;
  };
  const double before = experts_so_far(80);
  const double tokens = 40.0 * static_cast<double>(config.how.batch * config.shape.context);
  CHECK((experts_so_far(120) - before) / tokens == doctest::Approx(1.5).epsilon(0.1));
}

TEST_CASE("values that a router cannot have are refused when its layer is made") {
  const model_shape shape{.d_model = 16, .blocks = 1, .heads = 2, .context = 8, .vocabulary = 20};
  const auto refused = [&](const std::string& router, const char* why) {
    const variant v = parse_variant("experts=4,total=64,router=" + router);
    CHECK_THROWS_WITH_AS(make_feed_forwards<float>(v, shape, 1, 1), doctest::Contains(why), hmoe::error);
  };
  refused("group-limited:3:1:1", "the groups must be equal");
  refused("two-level:9:1:1", "9 groups of 4 experts");
  refused("sinkhorn:5", "k must be 1 to 4");
  refused("hash:1.5", "whole number");
  refused("cost-aware-top-p:0.5:1", "the cheapest expert costs");
}

} // namespace
} // namespace language_model
