// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/execution/workspace.hpp>

#include "support/allocation_count.hpp"
#include "support/counting_resource.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

using hmoe::workspace;

namespace {
std::byte* take(workspace& memory, std::size_t bytes, std::size_t alignment = 64) {
  return static_cast<std::byte*>(static_cast<std::pmr::memory_resource&>(memory).allocate(bytes, alignment));
}
bool aligned(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory) % 64 == 0; }
} // namespace

TEST_CASE("a scope gives everything back, so the next one gets the same bytes") {
  workspace memory(4096);
  CHECK(memory.capacity() == 4096);
  const std::byte* first = nullptr;
  {
    const workspace::scope scope(memory);
    first = take(memory, 100);
    CHECK(take(memory, 1) == first + 128); // whole cache lines
    CHECK(take(memory, 64) == first + 192);
    CHECK(memory.peak() == 256);
  }
  const workspace::scope scope(memory);
  CHECK(take(memory, 8) == first);
  CHECK(memory.peak() == 256);
}

TEST_CASE("nested scopes give back their own part only") {
  workspace memory(1024);
  const workspace::scope outer(memory);
  std::byte* kept = take(memory, 64);
  std::memset(kept, 0x5a, 64);
  for (int i = 0; i < 100; ++i) {
    const workspace::scope inner(memory);
    std::byte* scratch = take(memory, 512);
    CHECK(scratch == kept + 64);
    std::memset(scratch, i, 512);
    const workspace::scope innermost(memory);
    CHECK(take(memory, 64) == scratch + 512);
  }
  CHECK(memory.peak() == 640);
  CHECK(kept[63] == std::byte{0x5a});
}

TEST_CASE("a block that is too small overflows to the heap, then grows to what was needed at one time") {
  workspace memory;
  CHECK(memory.capacity() == 0);
  {
    const workspace::scope outer(memory);
    std::byte* first = take(memory, 1000); // 1024
    {
      const workspace::scope inner(memory);
      std::memset(take(memory, 5000), 1, 5000); // 5056
    }
    std::byte* second = take(memory, 2000); // 2048, after the inner scope gave its bytes back
    CHECK(aligned(first));
    CHECK(aligned(second));
    std::memset(first, 2, 1000);
    std::memset(second, 3, 2000);
    CHECK(first[999] == std::byte{2});
    CHECK(memory.capacity() == 0); // memory in use does not move
  }
  CHECK(memory.peak() == 1024 + 5056);
  CHECK(memory.capacity() == 1024 + 5056);
}

TEST_CASE("from the second pass of the same size on, nothing is allocated") {
  support::random_source random(7);
  std::vector<std::size_t> sizes(30);
  for (std::size_t& size : sizes)
    size = random.size(1, 3000);
  workspace memory;
  const auto pass = [&] {
    const workspace::scope outer(memory);
    hmoe::matrix<double> kept(&memory);
    kept.resize_for_overwrite(10, 10);
    for (const std::size_t size : sizes) {
      const workspace::scope inner(memory);
      hmoe::matrix<float> scratch(&memory);
      scratch.resize_for_overwrite(size, 3);
      scratch.set_zero();
      hmoe::buffer<char> more(size, &memory);
      more.fill('x');
    }
  };
  CHECK((support::allocations_in(pass) > 0) == support::counts_allocations);
  for (int i = 0; i < 3; ++i)
    CHECK(support::allocations_in(pass) == 0);

  workspace reserved(memory.peak());
  std::swap(sizes.front(), sizes.back());
  CHECK(support::allocations_in([&] {
          const workspace::scope scope(reserved);
          const hmoe::buffer<std::byte> all(memory.peak(), &reserved);
          CHECK(all.data() != nullptr);
        }) == 0);
}

TEST_CASE("all memory comes from the upstream resource and returns to it") {
  support::counting_resource upstream;
  {
    workspace memory(1000, &upstream);
    CHECK(memory.upstream() == &upstream);
    CHECK(upstream.live_bytes == 1000);
    const auto heap = support::allocations_in([&] {
      const workspace::scope scope(memory);
      std::memset(take(memory, 512), 1, 512);
      std::memset(take(memory, 5000), 2, 5000);
      CHECK(upstream.live_bytes >= 1000 + 5056);
    });
    CHECK(memory.capacity() == 512 + 5056); // one block, upstream too
    CHECK(upstream.live_bytes == memory.capacity());
    CHECK((heap > 0) == support::counts_allocations);
  }
  CHECK(upstream.live_bytes == 0);
}

TEST_CASE("a workspace in the memory of the caller") {
  alignas(64) std::array<std::byte, 1024> own{};
  support::counting_resource upstream;
  workspace memory{std::span(own).subspan(1, 1000), &upstream};
  CHECK(memory.capacity() == 896); // whole cache lines behind the first one
  {
    const workspace::scope scope(memory);
    CHECK(take(memory, 832) == own.data() + 64);
    CHECK(take(memory, 64) == own.data() + 896);
    CHECK(upstream.live_bytes == 0);
    std::byte* more = take(memory, 100);
    CHECK((more < own.data() || more >= own.data() + own.size()));
    CHECK(upstream.live_bytes > 0);
  }
  CHECK(memory.capacity() == 1024); // now upstream
  CHECK(upstream.live_bytes == 1024);
  workspace tiny{std::span(own).subspan(1, 30)};
  CHECK(tiny.capacity() == 0);
}

TEST_CASE("a workspace that may not grow says how much it lacks") {
  alignas(64) std::array<std::byte, 1024> own{};
  workspace memory{std::span(own), std::pmr::null_memory_resource()};
  const std::string lacks = "hmoe: the workspace has 1024 bytes, 1088 are needed, and it may not grow: give it more "
                            "memory (see moe_layer::workspace_bytes), or an upstream resource";
  {
    const workspace::scope scope(memory);
    CHECK(take(memory, 1000) == own.data());
    CHECK(support::error_of([&] { take(memory, 10); }) == lacks);
  }
  CHECK(support::error_of([&] { memory.reserve(1088); }) == lacks);
  CHECK(memory.capacity() == 1024); // as it was
  CHECK(memory.peak() == 1024);
  const workspace::scope scope(memory);
  CHECK(take(memory, 1024) == own.data());
}

TEST_CASE("random sequences of scopes never hand out bytes that are in use") {
  support::random_source random(8);
  workspace memory;
  struct piece {
    unsigned char* data;
    std::size_t size;
    unsigned char mark;
  };
  unsigned overwritten = 0, misaligned = 0;
  std::size_t largest = 0;
  const auto visit = [&](const auto& self, int depth, std::size_t used) -> void {
    const workspace::scope scope(memory);
    std::vector<piece> pieces;
    for (std::size_t step = random.size(1, 6); step > 0; --step) {
      const std::size_t size = random.size(1, 700);
      auto* data = reinterpret_cast<unsigned char*>(take(memory, size));
      used += (size + 63) / 64 * 64;
      largest = std::max(largest, used);
      misaligned += aligned(data) ? 0U : 1U;
      const auto mark = static_cast<unsigned char>(random.bits());
      std::memset(data, mark, size);
      pieces.push_back({data, size, mark});
      if (depth < 4)
        self(self, depth + 1, used);
    }
    for (const piece& p : pieces)
      for (std::size_t i = 0; i < p.size; ++i)
        overwritten += p.data[i] == p.mark ? 0U : 1U;
  };
  for (int pass = 0; pass < 20; ++pass)
    visit(visit, 0, 0);
  CHECK(overwritten == 0);
  CHECK(misaligned == 0);
  CHECK(memory.peak() == largest);
  CHECK(memory.capacity() == largest);
}

TEST_CASE("reserve grows, never shrinks, and not while a pass is using the memory") {
  workspace memory(100);
  memory.reserve(50);
  CHECK(memory.capacity() == 100);
  memory.reserve(200);
  CHECK(memory.capacity() == 200);
  {
    const workspace::scope scope(memory);
    CHECK_THROWS_WITH_AS(memory.reserve(300), "hmoe: workspace::reserve(300) while a pass is using the workspace",
                         hmoe::error);
    CHECK_THROWS_AS(memory.reserve(1), hmoe::error);
  }
  CHECK_NOTHROW(memory.reserve(300));
}

TEST_CASE("taking memory outside of a scope is refused: nobody would give it back") {
  workspace memory(1024);
  CHECK_THROWS_AS((void)take(memory, 64), hmoe::error);
}

TEST_CASE("alignment beyond a cache line is refused with both numbers, nothing is a valid size") {
  workspace memory;
  const workspace::scope scope(memory);
  CHECK_THROWS_WITH_AS((void)take(memory, 64, 128), "hmoe: the workspace aligns to 64 bytes, 128 were asked for",
                       hmoe::error);
  CHECK(take(memory, 0) != nullptr);
  CHECK(take(memory, 8, 8) != nullptr);
}

TEST_CASE("after a task failed in the middle of a pass, the next pass finds all memory again") {
  workspace memory(256);
  for (int i = 0; i < 3; ++i)
    CHECK_THROWS_AS(
        [&] {
          const workspace::scope outer(memory);
          (void)take(memory, 100);
          const workspace::scope inner(memory);
          (void)take(memory, 100);
          throw hmoe::error("stop");
        }(),
        hmoe::error);
  CHECK(memory.capacity() == 256);
  CHECK(memory.peak() == 256);
}

TEST_CASE("a workspace is equal to itself only") {
  workspace a, b;
  CHECK(a.is_equal(a));
  CHECK(!a.is_equal(b));
}
