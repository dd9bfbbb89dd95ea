// SPDX-License-Identifier: MIT
#pragma once

#include "corpus.hpp"
#include "process_group.hpp"
#include "run_config.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace language_model {

/// Variants trained alike on one text, each with as many seeds as it asks for.
struct comparison {
  run_config base; ///< what all runs share: all but variant and seed
  std::vector<variant> variants;
  bool add_controls = false; ///< a homogeneous control for every variant that has none
  std::filesystem::path folder;
  std::size_t threads = 1;
  std::string command;
  const process_group* group = nullptr; ///< processes that all do the same; the first one writes
};

/// Trains what is not finished yet and writes folder/results.json after each run. Returns the results, with
/// "interrupted" set when Ctrl-C came. Where controls are wanted, a finished variant gets the homogeneous one whose
/// activated width over training is within 2 % of its own; if there is none, one is made and trained.
nlohmann::json compare(const comparison& wanted, const corpus& text);

/// What results files say of a text and of the model that learns it.
nlohmann::json describe_corpus(const corpus& text, const run_config& base);
nlohmann::json describe_model(const run_config& base);

} // namespace language_model
