// SPDX-License-Identifier: MIT
#include <hmoe/hmoe.hpp>

#include <vector>

const int* version_seen_by_second_file();
std::size_t experts_counted_by_second_file(const std::vector<std::size_t>& widths);

int main() {
  const std::vector<std::size_t> widths{1, 2, 5};
  hmoe::experts::glu_bank<float, hmoe::experts::silu> bank{3, widths};
  // An inline variable is one object in the whole program.
  const bool same_version = version_seen_by_second_file() == &hmoe::version_minor;
  return same_version && experts_counted_by_second_file(widths) == bank.size() ? 0 : 1;
}
