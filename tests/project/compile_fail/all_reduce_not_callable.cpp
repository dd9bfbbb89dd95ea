// SPDX-License-Identifier: MIT
// expect: AllReduce is not callable with std::span<std::uint64_t>: pass a function that replaces
#include <hmoe/losses/load_accumulator.hpp>

void count(hmoe::losses::load_accumulator& load, const hmoe::routed_batch<float>& batch) {
#ifdef HMOE_MUST_COMPILE
  load.add(batch, [](std::span<std::uint64_t>) {});
#else
  load.add(batch, [](double) {});
#endif
}
