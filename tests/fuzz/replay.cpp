// SPDX-License-Identifier: MIT
// The fuzzer's seeds, these with one byte changed or cut behind it, and what the fuzzer has found (corpus/), once
// each.
#include "fuzz/model_target.hpp"
#include "fuzz/seeds.hpp"
#include "fuzz/targets.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>

namespace {
using target = void (*)(std::span<const std::byte>);
void run(target run_target, const std::string& bytes) { run_target(std::as_bytes(std::span(bytes))); }
const std::map<std::string, target> targets{{"safetensors", fuzz::safetensors},
                                            {"gguf", fuzz::gguf},
                                            {"routing_log", fuzz::routing_log},
                                            {"manifest", fuzz::manifest},
                                            {"packed", fuzz::packed},
                                            {"model", fuzz::model},
                                            {"routing_text", fuzz::routing_text},
                                            {"tuned_table", fuzz::tuned_table}};
} // namespace

TEST_CASE("seeds, and seeds with a fault at any place, are read or refused") {
  const auto seeds = fuzz::seeds();
  REQUIRE(seeds.size() == targets.size());
  for (const auto& [name, files] : seeds)
    for (const std::string& file : files)
      for (std::size_t i = 0; i < file.size(); i += name == "model" ? 5 : 1) { // a model takes longer
        std::string changed = file;
        changed[i] = "\0\x7f\xff"[i % 3];
        run(targets.at(name), changed);
        if (i % 4 == 0)
          run(targets.at(name), file.substr(0, i));
      }
}

TEST_CASE("seeds are sound") {
  const auto seeds = fuzz::seeds();
  const auto bytes = [](const std::string& file) { return std::as_bytes(std::span(file)); };
  for (const std::string& file : seeds.at("safetensors"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::safetensors_file(bytes(file), "seed")));
  for (const std::string& file : seeds.at("gguf"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::gguf_file(bytes(file), "seed")));
  for (const std::string& file : seeds.at("packed"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::packed_checkpoint(bytes(file), "seed")));
  for (const std::string& file : seeds.at("manifest"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::ragged_manifest::from_json(file, "seed")));
  for (const std::string& file : seeds.at("routing_text"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::from_routing_text<float>(file, "seed")));
  for (const std::string& file : seeds.at("tuned_table"))
    CHECK_NOTHROW(static_cast<void>(hmoe::io::parse_tuned_table(file, "seed", "CPU")));
}

TEST_CASE("layers of all seeds of models are loaded") {
  for (const std::string& file : fuzz::model_seeds()) {
    CAPTURE(file);
    CHECK(fuzz::load_model(std::as_bytes(std::span(file))));
  }
}

TEST_CASE("what the fuzzer has found") {
  std::size_t files = 0;
  for (const auto& [name, run_target] : targets)
    for (const auto& entry : std::filesystem::directory_iterator(std::string(HMOE_FUZZ_CORPUS) + "/" + name)) {
      run(run_target, support::contents_of(entry.path()));
      ++files;
    }
  CHECK(files >= targets.size());
}
