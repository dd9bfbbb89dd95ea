// SPDX-License-Identifier: MIT
#include <hmoe/parallel/shared_memory.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/parallel/threads.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
using sharing_rank = hmoe::communicators::threads::member;
using hmoe::communicators::shared_memory;

void wait_for_all(const sharing_rank& self) {
  std::vector<std::uint64_t> nothing(1);
  self.all_reduce(std::span(nothing));
}
/// A rank that calls functions before a sum or before it gathers, with the name with which values of shared_memory
/// begin; and after a sum.
struct watched_rank : sharing_rank {
  watched_rank(
      const sharing_rank& self, std::function<void(const char*)> begin, std::function<void()> end = [] {})
      : sharing_rank(self), begin_(std::move(begin)), end_(std::move(end)) {}

  template <hmoe::communicators::summed_value T> void all_reduce(std::span<T> values) const {
    begin_(nullptr);
    sharing_rank::all_reduce<T>(values);
    end_();
  }
  template <hmoe::communicators::message_value T>
  void all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    begin_(reinterpret_cast<const char*>(own.data()));
    sharing_rank::all_gather<T>(own, all);
  }

private:
  std::function<void(const char*)> begin_;
  std::function<void()> end_;
};
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

TEST_CASE("where one rank gets no memory, none has any, or all have as much as before") {
  std::vector<std::string> faults(3);
  hmoe::communicators::threads(3).run([&](const sharing_rank& self) {
    const std::size_t rank = self.rank(), too_much = rank == 1 ? std::size_t{1} << 60 : 64;
    const auto expect = [&](bool met, const char* what) { faults[rank] += met ? "" : std::string(what) + "; "; };
    shared_memory shared(shared_memory::between::processes, 3);
    expect(!shared.grow(self, too_much), "grown to 2^60 bytes");
    expect(shared.usable() && shared.bytes() == 0 && shared.part(2) == nullptr, "parts after a failure");
    expect(shared.grow(self, 100 + rank), "no part for fewer bytes");
    const std::size_t bytes = shared.bytes();
    const std::byte* const part = shared.part(rank);
    expect(!shared.grow(self, too_much) && shared.part(rank) == part, "what is known to fail is tried again");
    expect(!shared.grow(self, too_much / 2) && shared.bytes() == bytes, "the size is not the one before a failure");
    std::memset(shared.part(rank), static_cast<int>(rank + 1), bytes);
    wait_for_all(self);
    for (std::size_t p = 0; p < 3; ++p)
      expect(shared.part(p)[99] == static_cast<std::byte>(p + 1), "wrong byte");
    wait_for_all(self); // nobody reads any more
    expect(shared.grow(self, 1000) && shared.bytes() >= 1000, "does not grow any more");
  });
  CHECK(faults == std::vector<std::string>(3));
}

TEST_CASE("nobody makes a new part while another rank holds old ones") {
  std::vector<shared_memory> shared(2, {shared_memory::between::processes, 2});
  std::vector<char> grown(2, 0);
  std::atomic<std::size_t> begun_by_0 = 0;
  bool waited = false, made_early = false;
  hmoe::communicators::threads(2).run([&](const sharing_rank& self) {
    grown[self.rank()] = shared[self.rank()].grow(self, 64) ? 1 : 0;
    wait_for_all(self);
    const watched_rank watched{self,
                               [&](const char*) {
                                 if (self.rank() == 0)
                                   ++begun_by_0;
                               },
                               [&] { // rank 1 still has its parts, and rank 0 goes on
                                 if (self.rank() == 0 || std::exchange(waited, true))
                                   return;
                                 while (begun_by_0 < 2)
                                   std::this_thread::yield();
                                 made_early = shared[0].part(0) != nullptr;
                               }};
    shared[self.rank()].grow(watched, 128);
  });
  CHECK(grown == std::vector<char>{1, 1});
  CHECK(waited);
  CHECK(!made_early);
}

TEST_CASE("a file of shared memory is removed when an operation of the communicator throws") {
  std::vector<std::string> names(2);
  std::vector<char> states(2, '?');
  hmoe::communicators::threads(2).run([&](const sharing_rank& self) {
    const std::size_t rank = self.rank();
    shared_memory shared(shared_memory::between::processes, 2);
    const watched_rank failing{self, [&](const char* name) {
                                 if (name == nullptr)
                                   return;
                                 names[rank] = name;
                                 hmoe::require(std::filesystem::exists(names[rank]), "no file");
                                 hmoe::require(rank == 0, "this rank fails here");
                               }};
    const std::string text = support::error_of([&] { shared.grow(failing, 64); });
    states[rank] = text != (rank == 1 ? "hmoe: this rank fails here"
                                      : "hmoe: communicators::threads: rank 1 has ended, and takes part in no further "
                                        "operation")
                       ? 'e'
                   : std::filesystem::exists(names[rank]) ? 'f'
                   : shared.bytes() != 0                  ? 'b'
                                                          : '-';
  });
  CHECK(states == std::vector<char>{'-', '-'});
}

TEST_CASE("which communicators share memory") {
  CHECK(!hmoe::communicators::share_memory(hmoe::communicators::single{}));
  CHECK(hmoe::communicators::share_memory(hmoe::communicators::threads(2).members()[0]));
  CHECK(!hmoe::communicators::share_memory(hmoe::communicators::threads(2, false).members()[0]));
}
