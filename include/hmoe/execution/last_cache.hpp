// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>

namespace hmoe {

/// Bytes of the last cache that the first core sees (sysconf would add up those of a whole socket); 32 MB where the
/// system does not tell.
[[nodiscard]] inline std::size_t last_cache_bytes() noexcept {
  std::size_t largest = 0;
  char path[] = "/sys/devices/system/cpu/cpu0/cache/index0/size";
  for (char& index = path[sizeof(path) - 7]; index < '8'; ++index)
    if (std::FILE* const file = std::fopen(path, "r"); file != nullptr) {
      unsigned long size = 0;
      char unit = 'K';
      if (std::fscanf(file, "%lu%c", &size, &unit) >= 1)
        largest = std::max<std::size_t>(largest, std::size_t{size} << (unit == 'M' ? 20U : 10U));
      std::fclose(file);
    }
  return largest > 0 ? largest : std::size_t{32} << 20U;
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
