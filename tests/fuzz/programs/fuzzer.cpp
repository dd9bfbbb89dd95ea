// SPDX-License-Identifier: MIT
// What scripts/fuzz compiles for each target: HMOE_FUZZ_TARGET is its name, HMOE_FUZZ_HEADER the file that has it.
#include HMOE_FUZZ_HEADER

#include <cstddef>
#include <cstdint>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::HMOE_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}
