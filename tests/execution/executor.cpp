// SPDX-License-Identifier: MIT
#include <hmoe/execution/executor.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

using hmoe::executors::serial;

TEST_CASE("the serial executor runs each task once, in order, as worker 0") {
  static_assert(hmoe::executor<serial>);
  CHECK(serial::concurrency() == 1);
  std::vector<std::size_t> order;
  serial{}.for_each(5, [&](std::size_t task, std::size_t worker) {
    CHECK(worker == 0);
    order.push_back(task);
  });
  CHECK(order == std::vector<std::size_t>{0, 1, 2, 3, 4});
  serial{}.for_each(0, [](std::size_t, std::size_t) { FAIL("there is no task"); });
}

TEST_CASE("the first failure of the serial executor reaches the caller") {
  CHECK_THROWS_WITH_AS(serial{}.for_each(9,
                                         [](std::size_t task, std::size_t) {
                                           if (task % 4 == 3)
                                             throw std::out_of_range(std::to_string(task));
                                         }),
                       "3", std::out_of_range);
}

namespace {
struct no_concurrency {
  template <class Task> void for_each(std::size_t, Task&&) const {}
};
struct changes_itself {
  [[nodiscard]] std::size_t concurrency() const { return 1; }
  template <class Task> void for_each(std::size_t, Task&&) {}
};
} // namespace

TEST_CASE("what is no executor") {
  static_assert(!hmoe::executor<no_concurrency>);
  static_assert(!hmoe::executor<changes_itself>);
}
