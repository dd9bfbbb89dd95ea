// SPDX-License-Identifier: MIT
// usage: write_seeds FOLDER; writes FOLDER/TARGET/seed_N for each target.
#include "fuzz/seeds.hpp"

#include <filesystem>
#include <string>

int main(int count, char** arguments) {
  if (count != 2)
    return 2;
  for (const auto& [target, files] : fuzz::seeds()) {
    const std::filesystem::path folder = std::filesystem::path(arguments[1]) / target;
    std::filesystem::create_directories(folder);
    for (std::size_t i = 0; i < files.size(); ++i)
      support::set_contents(folder / ("seed_" + std::to_string(i)), files[i]);
  }
}
