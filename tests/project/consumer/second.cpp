// SPDX-License-Identifier: MIT
#include <hmoe/hmoe.hpp>

#include <vector>

const int* version_seen_by_second_file() { return &hmoe::version_minor; }

std::size_t experts_counted_by_second_file(const std::vector<std::size_t>& widths) {
  return hmoe::experts::glu_bank<float, hmoe::experts::silu>{3, widths}.size();
}
