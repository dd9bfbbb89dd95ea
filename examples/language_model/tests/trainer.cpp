// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <hmoe/core/error.hpp>

#include "comparison.hpp"
#include "interrupt.hpp"
#include "run.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <cstring>

namespace language_model {
namespace {

/// Whether two runs stand at the same point bit for bit; only the time they took may differ.
bool same_bits(checkpoint a, checkpoint b) {
  a.state.erase("seconds");
  b.state.erase("seconds");
  if (a.config != b.config || a.state != b.state || a.tensors.size() != b.tensors.size())
    return false;
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    const auto& x = a.tensors[i].values;
    const auto& y = b.tensors[i].values;
    if (a.tensors[i].name != b.tensors[i].name || x.size() != y.size())
      return false;
    if (std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) != 0)
      return false;
  }
  return true;
}

checkpoint after(trainer& t, std::size_t steps) {
  while (t.steps() < steps)
    t.step();
  return t.save();
}

TEST_CASE("training learns, and ends when the FLOPs are spent") {
  small_world world;
  world.config.budget_flops *= 5;
  trainer t(world.config, world.text, 1);
  t.step();
  const double first = t.last_loss();
  while (!t.finished())
    t.step();
  CHECK(t.last_loss() < 0.8 * first);
  const auto run = t.results();
  const auto& final = run.at("final");
  const double flops = final.at("flops_per_token").get<double>() * final.at("tokens").get<double>();
  CHECK(flops >= world.config.budget_flops);
  CHECK(flops < world.config.budget_flops * 1.05);
  CHECK(final.at("bits_per_byte").get<double>() > 0.0);
  CHECK(run.at("history").front().at("step") == 1);
  CHECK(run.at("history").back().at("step") == final.at("steps"));
  CHECK_FALSE(run.at("history").back().at("bits_per_byte").is_null());
  CHECK(run.at("sample").get<std::string>().size() > 160);
}

TEST_CASE("what nothing can be trained with is refused with its numbers") {
  const small_world world;
  const auto refused = [&](auto change, const char* why) {
    run_config config = world.config;
    change(config);
    CHECK_THROWS_WITH_AS(trainer(config, world.text, 1), doctest::Contains(why), hmoe::error);
  };
  const double nan = std::nan("");
  refused([](run_config& c) { c.how.batch = 0; }, "a batch of 0 windows");
  refused([](run_config& c) { c.how.learning_rate = -1; }, "a learning rate of -1");
  refused([&](run_config& c) { c.how.learning_rate = nan; }, "a learning rate of nan");
  refused([](run_config& c) { c.how.final_rate = 5; }, "a final rate of 5 of the peak");
  refused([](run_config& c) { c.how.weight_decay = -0.5; }, "a weight decay of -0.5");
  refused([&](run_config& c) { c.budget_flops = nan; }, "a budget of nan FLOPs");
  refused([](run_config& c) { c.budget_flops = 0; }, "a budget of 0 FLOPs");
  refused([](run_config& c) { c.shape.context = 100'000'000; }, "not more than one window of 100000000");
}

TEST_CASE("the number of threads does not show in a single bit") {
  const small_world world;
  for (const char* router : {"top-k:2", "top-p:0.6"}) {
    run_config config = world.config;
    config.what = parse_variant(std::string("experts=4,total=64,loss=parameter-penalty:0.1,router=") + router);
    trainer one(config, world.text, 1);
    trainer two(config, world.text, 2);
    trainer three(config, world.text, 3);
    const checkpoint expected = after(one, 12);
    CHECK(same_bits(after(two, 12), expected));
    CHECK(same_bits(after(three, 12), expected));
  }
}

TEST_CASE("a resumed run equals an uninterrupted one bit for bit") {
  const small_world world;
  trainer uninterrupted(world.config, world.text, 1);
  trainer stopped(world.config, world.text, 1);
  save_checkpoint(world.folder / "c", after(stopped, 13));
  trainer resumed(world.config, world.text, 2);
  resumed.restore(load_checkpoint(world.folder / "c"));
  CHECK(resumed.steps() == 13);
  CHECK(same_bits(after(resumed, 30), after(uninterrupted, 30)));
}

TEST_CASE("a checkpoint of another configuration is refused") {
  const small_world world;
  trainer t(world.config, world.text, 1);
  const checkpoint saved = t.save();
  run_config other = world.config;
  other.seed = 2;
  other.what = parse_variant("name=small,experts=4,total=60,loss=parameter-penalty:0.1");
  trainer u(other, world.text, 1);
  CHECK_THROWS_WITH_AS(u.restore(saved), doctest::Contains("/seed: 1 there, 2 now"), hmoe::error);
  CHECK_THROWS_WITH_AS(u.restore(saved), doctest::Contains("/variant/widths"), hmoe::error);
}

TEST_CASE("Ctrl-C saves, the next call goes on, and a damaged checkpoint is reported and kept") {
  const small_world world;
  const run_files files(world.folder / "runs", world.config);
  interrupt::listen();
  std::raise(SIGINT);
  CHECK_FALSE(run(world.config, world.text, files, 1));
  interrupt::clear();
  CHECK(load_checkpoint(files.checkpoint).state.at("steps") == 1);
  CHECK_FALSE(std::filesystem::exists(files.results));

  const std::string intact = read_file(files.checkpoint);
  const std::string truncated = intact.substr(0, intact.size() / 2);
  write_file(files.checkpoint, truncated);
  CHECK_THROWS_WITH_AS(run(world.config, world.text, files, 1), doctest::Contains("truncated"), hmoe::error);
  CHECK(read_file(files.checkpoint) == truncated);

  write_file(files.checkpoint, intact);
  const auto results = run(world.config, world.text, files, 1);
  REQUIRE(results);
  trainer uninterrupted(world.config, world.text, 1);
  while (!uninterrupted.finished())
    uninterrupted.step();
  CHECK(same_bits(load_checkpoint(files.checkpoint), uninterrupted.save()));

  const auto again = run(world.config, world.text, files, 1);
  CHECK((again == results));
  run_config other = world.config;
  other.budget_flops *= 2;
  CHECK_THROWS_WITH_AS(run(other, world.text, files, 1), doctest::Contains("/budget_flops"), hmoe::error);
}

TEST_CASE("a comparison trains every variant and seed, adds controls, and finds its finished runs again") {
  const small_world world;
  comparison wanted;
  wanted.base = world.config;
  wanted.variants = {parse_variant("name=uniform,experts=4,sizes=uniform,total=64,loss=load-balance:0.01"),
                     parse_variant("name=unequal,experts=4,total=32,loss=parameter-penalty:0.1"),
                     parse_variant("name=top-p,experts=4,total=64,router=top-p:0.9")};
  wanted.variants[1].runs = 2;
  wanted.add_controls = true;
  wanted.folder = world.folder / "out";
  const auto results = compare(wanted, world.text);
  CHECK_FALSE(results.at("interrupted").get<bool>());
  CHECK(results.at("format") == "hmoe-results-1");
  const auto& variants = results.at("variants");
  REQUIRE(variants.size() >= 4);
  CHECK(variants[0].at("control").is_null());
  CHECK(variants[1].at("runs").size() == 2);
  CHECK(variants[1].at("runs")[1].at("seed") == 2);
  for (const std::size_t with_control : {std::size_t{1}, std::size_t{2}}) {
    const auto name = variants[with_control].at("control").get<std::string>();
    CHECK(name.starts_with("homogeneous-"));
    CHECK(std::ranges::any_of(variants, [&](const auto& v) { return v.at("name") == name; }));
  }
  const auto on_disk = nlohmann::json::parse(read_file(wanted.folder / "results.json"));
  CHECK(on_disk.at("variants") == variants);

  const auto written = std::filesystem::last_write_time(wanted.folder / "runs" / "top-p-seed1.checkpoint");
  CHECK(compare(wanted, world.text).at("variants") == variants);
  CHECK(std::filesystem::last_write_time(wanted.folder / "runs" / "top-p-seed1.checkpoint") == written);
}

} // namespace
} // namespace language_model
