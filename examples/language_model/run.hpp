// SPDX-License-Identifier: MIT
#pragma once

#include "corpus.hpp"
#include "process_group.hpp"
#include "run_config.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

namespace language_model {

/// The files of one run.
struct run_files {
  std::filesystem::path checkpoint; ///< where it stands; the trained model when it has finished
  std::filesystem::path results;    ///< there when it has finished
  std::filesystem::path routing;    ///< a routing log of the trained model; runs of older versions left none

  run_files(const std::filesystem::path& folder, const run_config& config);
};

/// Trains to the end of the budget, from the checkpoint where there is one, saving every `save_seconds` and on
/// Ctrl-C. Returns the run's results, or nothing when it was interrupted. A finished run is read, not repeated; damaged
/// results are made again. A damaged checkpoint, and files of another configuration, are an error and stay as they are.
/// Of a group all processes call it, read the same files, and return the same; the first one writes.
std::optional<nlohmann::json> run(const run_config& config, const corpus& text, const run_files& files,
                                  std::size_t threads, const process_group* group = nullptr,
                                  double save_seconds = 30.0);

/// JSON text that is valid even where a string holds bytes that are no UTF-8.
std::string dump(const nlohmann::json& json);

} // namespace language_model
