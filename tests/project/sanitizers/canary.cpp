// SPDX-License-Identifier: MIT
// Makes one mistake on request, so that a test can see the sanitizer report it.
#include <cstdio>
#include <limits>
#include <memory>
#include <numeric>
#include <string_view>
#include <vector>

namespace {

constexpr int count = 1000;

int sum_in_parallel() {
  std::vector<int> ones(count, 0);
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < count; ++i)
    ones[static_cast<std::size_t>(i)] = 1;
  return std::accumulate(ones.begin(), ones.end(), 0);
}

int sum_with_race() {
  int sum = 0;
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < count; ++i)
    ++sum;
  return sum;
}

int read_after_free() {
  auto owner = std::make_unique<int>(count);
  const int* dangling = owner.get();
  owner.reset();
  return *dangling;
}

int add_one(int value) { return value + 1; }

} // namespace

int main(int argc, char** argv) {
  const std::string_view kind = argc > 1 ? argv[1] : "sound";
  int result = 0;
  if (kind == "race")
    result = sum_with_race();
  else if (kind == "use_after_free")
    result = read_after_free();
  else if (kind == "undefined")
    result = add_one(std::numeric_limits<int>::max());
  else
    result = sum_in_parallel();
  std::printf("%s: %d\n", kind.data(), result);
  return 0;
}
