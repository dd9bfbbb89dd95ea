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
#include <sstream>
#include <string>
#include <vector>

namespace language_model {
namespace {

/// Values for a layer of 4 experts.
std::string example_of(const std::string& router) {
  static const std::map<std::string, std::string> values{{"top-p", ":0.6"},
                                                         {"threshold", ":0.25"},
                                                         {"cumulative-threshold", ":0.6:3"},
                                                         {"group-limited", ":2:1:2"},
                                                         {"two-level", ":2:1:2"},
                                                         {"mohge", ":2:1:2"},
                                                         {"cost-aware-top-p", ":0.6:40"},
                                                         {"deepseek-v2", ":2:1:2:4"},
                                                         {"deepseek-v3", ":2:1:2:2.5:0.01"},
                                                         {"longcat-flash", ":2:3:0.01"},
                                                         {"raw-top-p", ":0.6"},
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

bool same_tensors(const checkpoint& a, const checkpoint& b) {
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
    CHECK_FALSE(same_tensors(end, relu ? plain_relu : plain));
  }
}

TEST_CASE("every option of a loss trains, the first is the default, and each makes a difference") {
  const small_world world;
  for (const auto& kind : loss_kinds()) {
    if (std::string(kind.options).empty())
      continue;
    std::istringstream options(kind.options);
    std::vector<checkpoint> ends;
    for (std::string option; std::getline(options, option, '|');) {
      const std::string loss = "loss=" + std::string(kind.name) + ":0.1";
      trainer t(with_variant(world.config, "router=top-k:2," + loss + ":" + option), world.text, 1);
      if (ends.empty()) {
        trainer plain(with_variant(world.config, "router=top-k:2," + loss), world.text, 1);
        ends.push_back(train_steps(plain, 3));
        CHECK(same_tensors(train_steps(t, 3), ends[0]));
        continue;
      }
      const checkpoint end = train_steps(t, 3);
      CAPTURE(loss);
      CAPTURE(option);
      for (const checkpoint& other : ends)
        CHECK_FALSE(same_tensors(end, other));
      ends.push_back(end);
    }
    CHECK(ends.size() >= 2);
  }
}

TEST_CASE("shared experts train beside any router, and count in widths, experts and FLOPs") {
  const small_world world;
  const auto trained = [&](const std::string& description) {
    trainer t(with_variant(world.config, description), world.text, 1);
    train_steps(t, 2);
    CHECK(std::isfinite(t.last_loss()));
    return t.results().at("final");
  };
  const auto& shape = world.config.shape;
  const auto alone = trained("sizes=uniform,router=top-k:2");
  CHECK(alone.at("activated_width") == 32);
  for (const auto& kind : shared_kinds()) {
    const std::string shared = ",shared=" + std::string(kind.name) + ":8/3";
    CAPTURE(shared);
    const auto with = trained("sizes=uniform,router=top-k:2" + shared);
    CHECK(with.at("activated_width") == 32 + 11);
    CHECK(with.at("training_activated_width") == 32 + 11);
    CHECK(with.at("activated_experts_per_layer") == std::vector<double>{4, 4});
    CHECK(with.at("share_per_layer").at(0).size() == 4);
    const double gate = std::string(kind.name) == "sigmoid-gated" ? 2.0 * static_cast<double>(shape.d_model) : 0.0;
    const double blocks = static_cast<double>(shape.blocks);
    CHECK(with.at("activated_parameters").get<double>() - alone.at("activated_parameters").get<double>() ==
          doctest::Approx(blocks * (expert_parameters(shape, 11) + gate)));
    CHECK(with.at("flops_per_token").get<double>() - alone.at("flops_per_token").get<double>() ==
          doctest::Approx(expert_flops(shape, blocks * 11) + 6 * blocks * gate));
    for (const char* router : {"top-p:0.6", "sign-bias-flops:2", "relu:2", "hash-table:1", "expert-choice:2"})
      trained("router=" + std::string(router) + shared + ",loss=parameter-penalty:0.1");
  }
}

TEST_CASE("hash-table deals out the vocabulary") {
  const model_shape shape{.d_model = 16, .blocks = 1, .heads = 2, .context = 8, .vocabulary = 20};
  const auto layers = make_feed_forwards<float>(parse_variant("experts=4,total=64,router=hash-table:3"), shape, 1, 1);
  const std::vector<hmoe::index_t> ids{0, 1, 2, 3, 0, 19, 8, 4};
  const matrix<float> x = matrix<float>::Ones(8, 16);
  matrix<float> y(8, 16);
  layers[0]->forward(x, y, {.token_ids = ids});
  for (std::size_t t = 0; t < ids.size(); ++t)
    for (std::size_t e = 0; e < 4; ++e) { // all but the one that comes after its three
      const auto chosen = layers[0]->assignment().experts_of(t);
      CHECK((std::ranges::find(chosen, e) == chosen.end()) == ((3 * ids[t] + 3) % 4 == e));
    }
}

TEST_CASE("what routers keep between steps moves, and a resumed run goes on with it bit for bit") {
  const small_world world;
  for (const char* router :
       {"sign-bias-flops:2:0.01", "proportional-bias:2:0.01", "controlled-top-p:1.5", "relu:2,loss=adaptive-l1:0.001",
        "noisy-top-k:2", "gate-residual:2", "hash:2", "top-k:2,shared=sigmoid-gated:8"}) {
    CAPTURE(router);
    const run_config config = with_variant(world.config, std::string("router=") + router);
    trainer uninterrupted(config, world.text, 1);
    trainer stopped(config, world.text, 1);
    save_checkpoint(world.folder / "c", train_steps(stopped, 7));
    trainer resumed(config, world.text, 1);
    resumed.restore(load_checkpoint(world.folder / "c"));
    const checkpoint end = train_steps(uninterrupted, 15);
    const checkpoint other = train_steps(resumed, 15);
    CHECK(same_tensors(end, other));
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
  refused("hash-table:5", "k is 5 of 4 experts");
}

} // namespace
} // namespace language_model
