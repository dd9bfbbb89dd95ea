// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <fstream>
#include <string>

namespace language_model {

/// Name of the processor as Linux tells it, or "unknown".
inline std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name"))
      return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

inline std::string compiler_name() {
#ifdef __clang__
  return "clang " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

/// What a speed depends on, for results.json. LANGUAGE_MODEL_FLAGS comes from the build.
inline nlohmann::json describe_machine(std::size_t threads) {
  return {
      {"cpu", processor_name()}, {"threads", threads}, {"compiler", compiler_name()}, {"flags", LANGUAGE_MODEL_FLAGS}};
}

} // namespace language_model
