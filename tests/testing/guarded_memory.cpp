// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/testing/guarded_memory.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>

using hmoe::testing::guarded_memory;

TEST_CASE("guarded memory is NaN, counts what is in use, and notices what is written beside a block") {
  guarded_memory memory;
  hmoe::buffer<float> a(16, &memory), b(16, &memory);
  CHECK(std::isnan(a[0]));
  CHECK(std::isnan(a[15]));
  CHECK(memory.peak() == 128);
  a.fill(1);
  b.fill(1);
  CHECK(memory.intact());
  SUBCASE("behind it") { a.data()[16] = 1; }
  SUBCASE("before it") { b.data()[-1] = 1; }
  SUBCASE("in a block that was given back") {
    hmoe::buffer<float> c(16, &memory);
    c.data()[16] = 1;
    CHECK(memory.peak() == 192);
  }
  CHECK(!memory.intact());
}

TEST_CASE("blocks that are given back count no longer") {
  guarded_memory memory;
  for (int i = 0; i < 3; ++i) {
    const hmoe::buffer<std::byte> block(64, &memory);
    CHECK(memory.peak() == 64);
  }
  CHECK(memory.intact());
  CHECK_THROWS_AS((void)memory.allocate(1, 4096), hmoe::error);
}
