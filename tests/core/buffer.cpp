// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>

#include "support/counting_resource.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <utility>

namespace {

bool aligned(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory) % 64 == 0; }

} // namespace

TEST_CASE("sizes are rounded up to whole cache lines") {
  CHECK(hmoe::aligned_bytes<char>(0) == 0);
  CHECK(hmoe::aligned_bytes<char>(1) == 64);
  CHECK(hmoe::aligned_bytes<char>(64) == 64);
  CHECK(hmoe::aligned_bytes<float>(17) == 128);
  CHECK(hmoe::aligned_bytes<double>(8) == 64);
}

TEST_CASE("memory is aligned to 64 bytes, whatever the size") {
  for (const std::size_t size : {1U, 3U, 16U, 17U, 1000U}) {
    CHECK(aligned(hmoe::buffer<float>(size).data()));
    CHECK(aligned(hmoe::buffer<char>(size).data()));
  }
  CHECK(hmoe::buffer<float>().data() == nullptr);
  CHECK(hmoe::buffer<float>(std::size_t{0}).size() == 0);
}

TEST_CASE("a buffer only grows, and smaller sizes allocate nothing") {
  support::counting_resource heap;
  {
    hmoe::buffer<int> values(&heap);
    CHECK(heap.allocations == 0);
    values.resize_for_overwrite(100);
    CHECK(heap.allocations == 1);
    const int* before = values.data();
    values.fill(5);
    values.resize_for_overwrite(10);
    CHECK(values.size() == 10);
    CHECK(values.end() - values.begin() == 10);
    values.resize_for_overwrite(100);
    CHECK(values.data() == before);
    CHECK(values.capacity() == 100);
    CHECK(values[99] == 5);
    CHECK(heap.allocations == 1);
    values.reserve(101);
    CHECK(heap.allocations == 2);
    CHECK(heap.live == 1);
    CHECK(values.size() == 100);
  }
  CHECK(heap.live == 0);
  CHECK(heap.live_bytes == 0);
}

TEST_CASE("copies are deep and live on the heap, moves hand the memory over") {
  support::counting_resource heap;
  {
    hmoe::buffer<int> first(3, &heap);
    std::copy_n(std::begin({1, 2, 3}), 3, first.begin());
    hmoe::buffer<int> copy = first;
    CHECK(heap.allocations == 1); // a copy may outlive the workspace of the original
    copy[0] = 10;
    CHECK(first[0] == 1);

    const int* memory = first.data();
    hmoe::buffer<int> moved = std::move(first);
    CHECK(moved.data() == memory);
    CHECK(moved[2] == 3);
    CHECK(first.size() == 0); // NOLINT(bugprone-use-after-move): emptied, as documented by this test
    CHECK(first.capacity() == 0);
    first.resize_for_overwrite(2); // and usable again

    copy = std::move(moved);
    CHECK(copy.data() == memory);
    auto& same = copy;
    copy = same;
    CHECK(copy.size() == 3);
    CHECK(copy[1] == 2);
    const hmoe::buffer<int> empty;
    copy = empty;
    CHECK(copy.size() == 0);
  }
  CHECK(heap.live == 0);
}

TEST_CASE("a size that cannot exist is named, and a failed allocation changes nothing") {
  hmoe::buffer<double> values(2);
  values.fill(1.5);
  const std::size_t huge = std::numeric_limits<std::size_t>::max() / 4;
  CHECK_THROWS_WITH_AS(
      values.resize_for_overwrite(huge),
      ("hmoe: an array of " + std::to_string(huge) + " values of 8 bytes does not fit into memory").c_str(),
      hmoe::error);
  CHECK(values.size() == 2);
  CHECK(values[1] == 1.5);

  support::counting_resource heap;
  hmoe::buffer<double> other(2, &heap);
  other.fill(2.5);
  heap.exhausted = true;
  CHECK_THROWS_AS(other.resize_for_overwrite(1000), std::bad_alloc);
  CHECK(other.size() == 2);
  CHECK(other[1] == 2.5);
}
