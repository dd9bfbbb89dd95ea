// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>

namespace run_checkpoint {

struct options {
  // Which layer.
  std::string checkpoint; ///< a model folder, or a file of unequal or of packed experts; empty: one is made
  std::size_t layer = 0;  ///< of a model folder
  std::string prefix;     ///< of a file's layer
  std::size_t k = 0;      ///< experts of a token of a file's layer; 0: 2, or those of the shape

  // The checkpoint that is made.
  std::string shape = "tiny";
  std::size_t kept = 0; ///< percent of the neurons; 0: all of them, as a model is released
  std::string make;     ///< where it is kept; empty: nowhere

  // What is done with it.
  std::size_t prune = 0; ///< percent of the neurons that are kept; 0: all
  std::string format = "q8";
  std::string save, trace;
  std::size_t tokens = 64, threads = 1, repeats = 5;
};

} // namespace run_checkpoint
