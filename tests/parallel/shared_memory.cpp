// SPDX-License-Identifier: MIT
#include <hmoe/parallel/shared_memory.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/parallel/threads.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {
using sharing_rank = hmoe::communicators::threads::member;
using hmoe::communicators::shared_memory;

void wait_for_all(const sharing_rank& self) {
  std::vector<std::uint64_t> nothing(1);
  self.all_reduce(std::span(nothing));
}
} // namespace

TEST_CASE("what a rank writes into its part the others read there, after it has grown, too") {
  for (const auto who : {shared_memory::between::threads, shared_memory::between::processes}) {
    std::vector<std::string> faults(3);
    hmoe::communicators::threads(3).run([&](const sharing_rank& self) {
      const std::size_t rank = self.rank();
      shared_memory shared(who, 3);
      if (shared.bytes() != 0 || !shared.usable())
        faults[rank] += "there is a part before one is made; ";
      for (const std::size_t least : {std::size_t{100}, std::size_t{70000}}) {
        if (!shared.grow(self, least * (rank + 1)) || shared.bytes() < least * (rank + 1))
          faults[rank] += "no part; ";
        std::memset(shared.part(rank), static_cast<int>(rank + least % 7), least * (rank + 1));
        wait_for_all(self);
        for (std::size_t p = 0; p < 3; ++p) {
          if (reinterpret_cast<std::uintptr_t>(shared.part(p)) % hmoe::memory_alignment != 0)
            faults[rank] += "not aligned; ";
          for (std::size_t i = 0; i < least * (p + 1); ++i)
            if (shared.part(p)[i] != static_cast<std::byte>(p + least % 7)) {
              faults[rank] += "wrong byte; ";
              break;
            }
        }
        wait_for_all(self); // nobody reads any more
      }
    });
    CHECK(faults == std::vector<std::string>(3));
  }
}

TEST_CASE("where one rank gets no memory, none has any") {
  std::vector<std::string> states(3);
  hmoe::communicators::threads(3).run([&](const sharing_rank& self) {
    shared_memory shared(shared_memory::between::processes, 3);
    const bool grown = shared.grow(self, self.rank() == 1 ? std::size_t{1} << 60 : 64);
    states[self.rank()] = std::string(grown ? "grown" : "none") + (shared.usable() ? ", usable" : "") +
                          (shared.bytes() == 0 && shared.part(2) == nullptr ? "" : ", has parts");
  });
  CHECK(states == std::vector<std::string>(3, "none"));
}

TEST_CASE("which communicators share memory") {
  CHECK(!hmoe::communicators::share_memory(hmoe::communicators::single{}));
  CHECK(hmoe::communicators::share_memory(hmoe::communicators::threads(2).members()[0]));
  CHECK(!hmoe::communicators::share_memory(hmoe::communicators::threads(2, false).members()[0]));
}
