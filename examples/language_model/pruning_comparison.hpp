// SPDX-License-Identifier: MIT
#pragma once

#include "checkpoint.hpp"
#include "corpus.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace language_model {

/// Trained models, each cut to several budgets in several ways and fine-tuned alike.
struct pruning_comparison {
  std::vector<std::filesystem::path> models; ///< checkpoints of runs on the same text, with one shape
  std::vector<double> budgets{0.75, 0.5, 0.25};
  std::size_t calibration_tokens = 65'536;
  std::size_t anneal_tokens = 262'144; ///< of training text behind that of the training; 0: no fine-tuning
  double anneal_rate = 1e-3;           ///< peak of the learning rate, which then falls to 0 as a cosine does
  std::filesystem::path folder;
  std::size_t threads = 1;
  std::string command;
};

/// Throws hmoe::error for budgets and numbers that cannot work.
void validate(const pruning_comparison& wanted);

/// Compares, and writes folder/pruning.json and pruning.csv after each line of the table. All cuts of a model are made
/// with the same statistics and fine-tuned on the same tokens, without auxiliary losses, as is the whole model. Returns
/// what pruning.json holds, with "interrupted" set when Ctrl-C came.
nlohmann::json compare_cuts(const pruning_comparison& wanted, const corpus& text);

} // namespace language_model
