// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include "shapes.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace benchmarks {

/// All shapes, or those that arguments --shape=NAME ask for; these arguments are taken away. A run over one shape can
/// interleave its benchmarks at random without building weights again and again.
inline std::vector<layer_shape> chosen_shapes(int& argc, char** argv) {
  constexpr std::string_view option = "--shape=";
  const auto all = shapes();
  std::vector<layer_shape> chosen;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(option)) {
      argv[kept++] = argv[i];
      continue;
    }
    const auto found = std::ranges::find(all, argument.substr(option.size()), &layer_shape::name);
    hmoe::require(found != all.end(), "there is no shape ", argument.substr(option.size()));
    chosen.push_back(*found);
  }
  argc = kept;
  return chosen.empty() ? all : chosen;
}

/// Whether the argument is there; it is taken away.
inline bool take_flag(int& argc, char** argv, std::string_view flag) {
  char** const end = std::remove_if(argv + 1, argv + argc, [&](const char* argument) { return argument == flag; });
  const auto kept = static_cast<int>(end - argv);
  return std::exchange(argc, kept) != kept;
}

} // namespace benchmarks
