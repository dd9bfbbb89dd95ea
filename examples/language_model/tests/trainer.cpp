// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <hmoe/core/error.hpp>
#include <hmoe/io/routing_log.hpp>

#include "comparison.hpp"
#include "interrupt.hpp"
#include "run.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

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
  refused([](run_config& c) { c.budget_flops = 1e300; }, "--budget must be above 0 and at most 1e21");
  refused([](run_config& c) { c.how.learning_rate = 1e300; }, "a learning rate of 1e+300: --learning-rate must be");
  refused([](run_config& c) { c.how.beta1 = 1; }, "a beta1 of 1: --beta1 must be in [0, 1)");
  refused([](run_config& c) { c.how.beta2 = -1e9; }, "a beta2 of -1e+09: --beta2 must be in [0, 1)");
  refused([](run_config& c) { c.how.weight_decay = 1e300; }, "a weight decay of 1e+300: --weight-decay must");
  refused([](run_config& c) { c.how.gradient_norm = 0; }, "a gradient norm of 0: --gradient-norm must be finite");
  refused([](run_config& c) { c.shape.heads = std::size_t{1} << 63U; }, "change --d-model or --heads");
  refused([](run_config& c) { c.shape.d_model = 1'000'000'000'000; },
          "GB, is for attention: give a smaller --d-model or --blocks");
  refused([](run_config& c) { c.shape.blocks = 1'000'000'000'000; }, "GB of memory, and this machine has");
  refused([](run_config& c) { c.what.widths.assign(1'024, 1'000'000'000); },
          "is for the experts: give a smaller number of experts or total in the variant");
}

TEST_CASE("the memory of model S is what its tensors take") {
  run_config c;
  c.what = parse_variant("sizes=uniform");
  // Weights: 2 blocks of 8 experts of 3 · 64 · 128, a router of 8 · 64 and attention of 4 · 64²; twice 512 · 64.
  const double weights = 2 * (8 * 3 * 64 * 128 + 8 * 64 + 4 * 64 * 64) + 2 * 512 * 64;
  CHECK(least_memory(c) >= 16 * weights);
  CHECK(least_memory(c) < 100e6); // a run takes about 60 MB
  CHECK_NOTHROW(require_memory(c));
}

TEST_CASE("a run that diverges ends with the option to change, not with NaN") {
  const small_world world;
  run_config config = world.config;
  config.how.learning_rate = 1;
  config.how.warmup_steps = 0;
  config.how.weight_decay = 0;
  config.how.gradient_norm = 1e30;
  config.what.losses = {{"z", 1e6, {}}};
  config.budget_flops = 1e12;
  trainer t(config, world.text, 1);
  for (const auto& p : t.parameters())
    std::ranges::fill(p.value, 1e30F);
  CHECK_THROWS_WITH_AS(t.step(),
                       doctest::Contains("failed in step 1: its numbers are no longer finite. Give a smaller "
                                         "--learning-rate (it is 1)"),
                       hmoe::error);
}

TEST_CASE("damaged results of a finished run are made again from its checkpoint, and a line says so") {
  small_world world;
  world.config.budget_flops /= 4;
  const run_files files(world.folder / "runs", world.config);
  const auto results = run(world.config, world.text, files, 1);
  REQUIRE(results);
  // Beside them, where the trained model sends a batch of held-out text: a record for each layer.
  const auto routing = hmoe::io::read_routing_log<float>(files.routing.string());
  REQUIRE(routing.size() == world.config.shape.blocks);
  for (std::size_t l = 0; l < routing.size(); ++l) {
    CHECK(routing[l].layer == l);
    CHECK(routing[l].step == results->at("final").at("steps").get<std::uint64_t>());
    CHECK(routing[l].experts == world.config.what.all_widths().size());
    CHECK(routing[l].assigned.tokens() >= world.config.shape.context);
    CHECK(routing[l].assigned.size() >= routing[l].assigned.tokens());
  }
  const std::string intact = read_file(files.results);
  const auto again = [&](const std::string& contents) {
    write_file(files.results, contents);
    const captured_errors errors;
    CHECK((run(world.config, world.text, files, 1) == results));
    CHECK(read_file(files.results) == intact);
    return errors.text();
  };
  CHECK(again(intact).empty());
  const std::string expected = files.results.string() + " is damaged: it is made again from ";
  std::vector<std::string> others = damaged(intact);
  const auto parsed = nlohmann::json::parse(intact);
  std::string digit = intact; // still JSON, and of the right types
  const std::size_t at = digit.find("\"bits_per_byte\": ") + 17;
  digit[at] = digit[at] == '3' ? '4' : '3';
  others.push_back(digit);
  auto old = parsed; // as older versions wrote it
  old.erase("checksum");
  old["run"]["final"]["bits_per_byte"] = "2.2";
  others.push_back(old.dump());
  old["run"]["final"] = nullptr;
  others.push_back(old.dump());
  old["run"] = 3;
  others.push_back(old.dump());
  for (const auto& contents : {"null", "[]", "{\"config\": 1, \"run\": 2}"})
    if (std::string(contents) != others.back())
      others.emplace_back(contents);
  for (const auto& contents : others) {
    CAPTURE(contents.substr(0, 100));
    if (contents.starts_with(intact.substr(0, intact.size() - 1)) && contents.size() <= intact.size())
      continue; // without the last line feed it is whole
    CHECK(again(contents).starts_with(expected));
  }
  old = parsed;
  old.erase("checksum");
  write_file(files.results, old.dump());
  CHECK((run(world.config, world.text, files, 1) == results));
  CHECK(read_file(files.results) == old.dump());

  std::filesystem::remove(files.checkpoint);
  write_file(files.results, "damaged");
  const captured_errors errors;
  const auto trained = run(world.config, world.text, files, 1);
  CHECK(errors.text().find("it is made again by training again") != std::string::npos);
  REQUIRE(trained);
  CHECK(trained->at("final").at("bits_per_byte") == results->at("final").at("bits_per_byte"));
}

TEST_CASE("a checkpoint with a state of other types or sizes is refused in words") {
  const small_world world;
  trainer t(world.config, world.text, 1);
  t.step();
  const checkpoint saved = t.save();
  for (const char* key : {"steps", "seconds", "last_loss", "totals", "since_point", "loss_since_point",
                          "steps_since_point", "history", "layers"})
    for (const nlohmann::json& value : {nlohmann::json("x"), nlohmann::json::object(), nlohmann::json{{1, 2, 3}}}) {
      if (std::string(key) == "history" && value.is_array())
        continue;
      CAPTURE(key);
      CAPTURE(value.dump());
      checkpoint other = saved;
      other.state[key] = value;
      trainer u(world.config, world.text, 1);
      CHECK_THROWS_WITH_AS(u.restore(other), doctest::Contains("the checkpoint"), hmoe::error);
    }
  CHECK_THROWS_WITH_AS(run_config_from_json({{"model", 3}}), doctest::Contains("not the description of a run"),
                       hmoe::error);
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
