// SPDX-License-Identifier: MIT
#include "pruning.hpp"

#include "batches.hpp"
#include "evaluation.hpp"
#include "feed_forwards.hpp"
#include "pruning_comparison.hpp"
#include "run.hpp"
#include "support.hpp"
#include "trainer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace language_model {
namespace {

/// A model that was trained for a moment, and batches of its text.
struct trained_world : small_world {
  decoder<float> model;
  std::vector<batch> batches;

  trained_world()
      : model(config.shape, make_feed_forwards<float>(config.what, config.shape, config.how.batch, 1), config.how.batch,
              1) {
    trainer t(config, text, 1);
    while (!t.finished())
      t.step();
    load_model(t.save(), model);
    for (std::uint64_t s = 0; s < 4; ++s)
      batches.push_back(training_batch(text.train, config.how.batch, config.shape.context, hmoe::seed{1}, 1000 + s));
  }
  std::vector<std::size_t> widths(const decoder<float>& m, std::size_t l) const {
    return {m.layer(l).widths().begin(), m.layer(l).widths().end()};
  }
};

TEST_CASE("a model is cut to a budget: each way leaves what it should, and nothing cut is the model itself") {
  trained_world world;
  auto& model = world.model;
  const auto sums = calibrate(model, world.batches);
  REQUIRE(sums.size() == 2);
  CHECK(sums[0].tokens() == 4 * 128);
  CHECK(sums[1].gradient_tokens() == 4 * 128);
  const auto total = [](const std::vector<std::size_t>& widths) {
    std::size_t sum = 0;
    for (const std::size_t w : widths)
      sum += w;
    return sum;
  };
  const batch& b = world.batches[0];
  const double whole_loss = model.evaluate(b.inputs, b.targets);
  for (const double budget : {0.75, 0.5})
    for (const cut how : {cut::nothing, cut::uniform, cut::unequal, cut::drop, cut::constants}) {
      CAPTURE(budget);
      CAPTURE(name_of(how));
      decoder<float> cut_model(world.config.shape, pruned_layers(model, sums, how, budget, 1), world.config.how.batch,
                               1);
      copy_all_but_layers(model, cut_model);
      const double loss = cut_model.evaluate(b.inputs, b.targets);
      for (std::size_t l = 0; l < 2; ++l) {
        const auto before = world.widths(model, l), after = world.widths(cut_model, l);
        const double most = budget * static_cast<double>(total(before));
        if (how == cut::nothing) {
          CHECK(after == before);
          continue;
        }
        CHECK(static_cast<double>(total(after)) <= most);
        for (std::size_t e = 0; e < before.size(); ++e) {
          if (how == cut::uniform)
            CHECK(after[e] == static_cast<std::size_t>(budget * static_cast<double>(before[e])));
          if (how == cut::drop || how == cut::constants)
            CHECK((after[e] == 0 || after[e] == before[e]));
        }
        if (how == cut::unequal)
          CHECK(static_cast<double>(total(after)) > most - 1);
      }
      if (how == cut::nothing)
        CHECK(loss == whole_loss);
      else
        CHECK(loss != whole_loss);
      // What was cut can be trained further.
      for (const auto& p : cut_model.parameters())
        std::ranges::fill(p.gradient, 0.0F);
      const auto losses = cut_model.accumulate_gradients(b.inputs, b.targets, {}, false);
      CHECK(losses.auxiliary == 0);
      bool moves = false;
      for (const auto& p : cut_model.parameters())
        if (p.expert != hmoe::parameter_info::no_expert)
          moves = moves || std::ranges::any_of(p.gradient, [](float g) { return g != 0; });
      CHECK(moves);
    }
  CHECK_THROWS_WITH_AS(pruned_layers(model, sums, cut::drop, 0.01, 1), doctest::Contains("not even one expert"),
                       hmoe::error);
}

TEST_CASE("HEAPr's importance sees the task alone: auxiliary losses do not change the statistics") {
  trained_world world;
  const auto sums = calibrate(world.model, world.batches);
  // With the losses of the variant in the gradient, earlier layers would see other ones.
  run_config without = world.config;
  without.what = parse_variant("name=small,experts=4,total=64");
  decoder<float> same(without.shape, make_feed_forwards<float>(without.what, without.shape, without.how.batch, 1),
                      without.how.batch, 1);
  const auto from = world.model.parameters();
  const auto to = same.parameters();
  for (std::size_t i = 0; i < to.size(); ++i)
    std::ranges::copy(from[i].value, to[i].value.begin());
  const auto expected = calibrate(same, world.batches);
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t e = 0; e < 4; ++e) {
      CHECK(sums[l].expert(e).rows == expected[l].expert(e).rows);
      for (std::size_t i = 0; i < sums[l].expert(e).neurons.size(); ++i)
        CHECK(sums[l].expert(e).neurons[i].effect == expected[l].expert(e).neurons[i].effect);
    }
}

TEST_CASE("cuts are compared after the same fine-tuning, and the files hold every line") {
  small_world world;
  const run_files files(world.folder / "runs", world.config);
  REQUIRE(run(world.config, world.text, files, 1));
  pruning_comparison wanted;
  wanted.models = {files.checkpoint};
  wanted.budgets = {0.5};
  wanted.calibration_tokens = 256;
  wanted.anneal_tokens = 1024;
  wanted.folder = world.folder / "pruned";
  captured_errors progress;
  const auto results = compare_cuts(wanted, world.text);
  const auto& lines = results.at("lines");
  REQUIRE(lines.size() == 5);
  CHECK(lines[0].at("cut") == "nothing");
  CHECK(lines[0].at("expert_bytes") == 2 * 3 * 16 * 64 * 4);
  for (std::size_t i = 1; i < 5; ++i) {
    CHECK(lines[i].at("expert_bytes").get<std::size_t>() <= 2 * 3 * 16 * 32 * 4 + 2 * 4 * 16 * 4);
    CHECK(lines[i].at("expert_flops_per_token").get<double>() < lines[0].at("expert_flops_per_token").get<double>());
    CHECK(lines[i].at("bits_per_byte") < lines[i].at("bits_per_byte_before")); // fine-tuning helps after a cut
  }
  CHECK(nlohmann::json::parse(read_file(wanted.folder / "pruning.json")).at("lines") == lines);
  const std::string csv = read_file(wanted.folder / "pruning.csv");
  CHECK(std::ranges::count(csv, '\n') == 6);
  CHECK(csv.starts_with("model,seed,cut,budget,"));
  // The same numbers again.
  const auto again = compare_cuts(wanted, world.text);
  CHECK(again.at("lines")[2].at("bits_per_byte") == lines[2].at("bits_per_byte"));

  const auto refused = [&](auto change, const char* why) {
    pruning_comparison bad = wanted;
    change(bad);
    CHECK_THROWS_WITH_AS(compare_cuts(bad, world.text), doctest::Contains(why), hmoe::error);
  };
  refused([](pruning_comparison& w) { w.budgets = {1.5}; }, "a budget of 1.5 of the experts' parameters");
  refused([](pruning_comparison& w) { w.anneal_rate = 0; }, "--anneal-rate");
  corpus other = world.text;
  ++other.fingerprint;
  CHECK_THROWS_WITH_AS(compare_cuts(wanted, other), doctest::Contains("was trained on another text"), hmoe::error);
}

} // namespace
} // namespace language_model
