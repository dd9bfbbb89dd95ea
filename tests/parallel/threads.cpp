// SPDX-License-Identifier: MIT
#include <hmoe/parallel/threads.hpp>
#include <hmoe/testing/communicator_laws.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {
using thread_rank = hmoe::communicators::threads::member;

/// The errors that the ranks get, "no error" where there is none.
template <class F> std::vector<std::string> errors_of_ranks(std::size_t ranks, const F& f) {
  std::vector<std::string> errors(ranks);
  const std::string thrown = support::error_of([&] {
    hmoe::communicators::threads(ranks).run([&](const thread_rank& self) {
      errors[self.rank()] = support::error_of([&] { f(self); });
      if (errors[self.rank()] != "no error")
        hmoe::fail(errors[self.rank()].substr(6));
    });
  });
  errors.push_back(thrown);
  return errors;
}
bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }
} // namespace

TEST_CASE("threads keep the laws of communicators") {
  for (const std::size_t ranks : {1U, 2U, 3U, 8U}) {
    CAPTURE(ranks);
    std::vector<std::string> found(ranks);
    hmoe::communicators::threads(ranks).run(
        [&](const thread_rank& self) { found[self.rank()] = hmoe::testing::check_communicator(self).text(); });
    for (const std::string& text : found)
      CHECK(text == "");
  }
}

TEST_CASE("sums run over ranks in ascending order") {
  hmoe::communicators::threads(3).run([](const thread_rank& self) {
    // (1e8 - 1e8) + 1 is 1, in any other order 0 in float
    std::vector<float> value{std::array<float, 3>{1e8F, -1e8F, 1.0F}[self.rank()]};
    self.all_reduce(std::span(value));
    if (value[0] != 1.0F)
      hmoe::fail("the sum is " + std::to_string(value[0]));
  });
}

TEST_CASE("members serve threads of the caller's own") {
  const auto members = hmoe::communicators::threads(2).members();
  std::uint64_t heard = 0;
  std::thread other([&] {
    const std::vector<std::uint64_t> send{10, 11};
    std::vector<std::uint64_t> receive(2);
    members[1].all_to_all(send, std::span(receive));
  });
  const std::vector<std::uint64_t> send{20, 21};
  std::vector<std::uint64_t> receive(2);
  members[0].all_to_all(send, std::span(receive));
  heard = receive[1];
  other.join();
  CHECK(heard == 10);
}

TEST_CASE("a rank that throws ends the others' operations with its reason, and run with its exception") {
  std::vector<float> values(2);
  const auto errors = errors_of_ranks(3, [&](const thread_rank& self) {
    if (self.rank() == 1)
      hmoe::fail("rank one gives up");
    std::vector<float> all(3);
    for (;;) {
      self.all_gather(std::span(values).first(1), std::span(all));
    }
  });
  CHECK(errors[0] == "hmoe: communicators::threads: rank 1 has failed: hmoe: rank one gives up");
  CHECK(errors[2] == errors[0]);
  CHECK(errors[3] == "hmoe: rank one gives up");

  // Between begin and finish, and with an exception of another type.
  std::string caught;
  try {
    hmoe::communicators::threads(2).run([&](const thread_rank& self) {
      std::vector<double> own(1000, 1.0), all(2000);
      auto pending = self.begin_all_gather(own, std::span(all));
      if (self.rank() == 0)
        throw std::range_error("out");
      pending.finish();
      self.all_reduce(std::span(own));
    });
  } catch (const std::range_error& e) {
    caught = e.what();
  }
  CHECK(caught == "out");
}

TEST_CASE("a rank that returns while others wait for it ends their operations, those that it has begun not") {
  const auto errors = errors_of_ranks(3, [&](const thread_rank& self) {
    std::vector<double> values(100, 1.0);
    for (std::size_t i = 0; i < 5 + (self.rank() == 1 ? 0U : 1U); ++i) {
      self.all_reduce(std::span(values));
      if (i == 4)
        hmoe::require(values[99] == 243, "a sum of rank ", self.rank(), " is ", values[99]);
    }
  });
  CHECK(errors[1] == "no error");
  const std::string ended = "communicators::threads: rank 1 has ended, and takes part in no further operation";
  for (const std::size_t r : {0U, 2U}) // of both or by way of the other
    CHECK(has(errors[r], ended));
  CHECK(errors[3] == "hmoe: " + ended);
}

TEST_CASE("an operation that is given up after a rank has ended waits for nobody") {
  std::promise<std::vector<std::string>> told;
  auto errors = told.get_future();
  // On a thread of its own, so that a rank that waits for ever is a failure.
  std::thread([told = std::move(told)]() mutable {
    told.set_value(errors_of_ranks(3, [](const thread_rank& self) {
      if (self.rank() == 1)
        return;
      std::vector<double> x(10), y(10);
      auto first = self.begin_all_reduce(std::span(x));
      const auto second = self.begin_all_reduce(std::span(y)); // ends with the exception of the first one
      first.finish();
    }));
  }).detach();
  REQUIRE(errors.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
  CHECK(errors.get().back() ==
        "hmoe: communicators::threads: rank 1 has ended, and takes part in no further operation");
}

TEST_CASE("ranks that do not agree are told so") {
  const std::array<std::size_t, 2> one{1, 1}, more{1, 2};
  auto errors = errors_of_ranks(2, [&](const thread_rank& self) {
    std::vector<float> send(4), receive(4);
    const auto& sent = self.rank() == 0 ? more : one;
    self.all_to_all(std::span(send).first(sent[0] + sent[1]), sent, std::span(receive).first(2), one);
  });
  CHECK(has(errors[2], "hmoe: all_to_all: rank 1 expects 1 rows of 4 bytes of rank 0, which sends 2 of 4"));

  errors = errors_of_ranks(2, [&](const thread_rank& self) {
    std::vector<float> values(2);
    if (self.rank() == 0)
      self.all_reduce(std::span(values));
    else
      self.all_to_all(values, std::span(values));
  });
  CHECK((has(errors[2], "hmoe: communicators::threads: ranks 0 and 1 are at different operations") ||
         has(errors[2], "hmoe: communicators::threads: ranks 1 and 0 are at different operations")));

  errors = errors_of_ranks(2, [&](const thread_rank& self) {
    std::vector<float> values(2);
    self.all_reduce(std::span(values).first(1 + self.rank()));
  });
  // Whoever finds it first.
  CHECK((errors[2] == "hmoe: communicators::threads: rank 0 gives 4 bytes, rank 1 gives 8 to the same operation" ||
         errors[2] == "hmoe: communicators::threads: rank 1 gives 8 bytes, rank 0 gives 4 to the same operation"));
}

TEST_CASE("what a group of threads refuses") {
  CHECK(support::error_of([] { hmoe::communicators::threads refused{0}; }) ==
        "hmoe: communicators::threads of 0 ranks: give at least 1");
  const auto members = hmoe::communicators::threads(1).members();
  std::vector<std::array<float, 1>> values(17);
  std::vector<thread_rank::pending> pending;
  CHECK(support::error_of([&] {
          for (auto& value : values)
            pending.push_back(members[0].begin_all_reduce(std::span<float>(value)));
        }) == "hmoe: rank 0 has begun 16 operations that it has not finished: finish some");
  for (auto& each : pending)
    each.finish();
  // One that is not finished while others come and go.
  std::vector<float> first(1), later(1);
  auto open = members[0].begin_all_reduce(std::span(first));
  CHECK(support::error_of([&] {
          for (int i = 0; i < 100; ++i)
            members[0].all_reduce(std::span(later));
        }) == "hmoe: rank 0 finishes operations in another order than they began");
  open.finish();
}
