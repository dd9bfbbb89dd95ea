// SPDX-License-Identifier: MIT
#include <hmoe/parallel/communicator.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace {
struct done_at_once {
  void finish() const {}
};
/// Has the forms that begin; the others come from the base.
struct silent : hmoe::communicators::waiting_forms<silent> {
  static std::size_t rank() { return 0; }
  static std::size_t size() { return 2; }
  template <class T>
  done_at_once begin_all_to_all(std::span<const std::type_identity_t<T>>, std::span<T> receive) const {
    receive[0] = T(1);
    return {};
  }
  template <class T>
  done_at_once begin_all_to_all(std::span<const std::type_identity_t<T>>, std::span<const std::size_t>,
                                std::span<T> receive, std::span<const std::size_t>, std::size_t columns) const {
    receive[0] = static_cast<T>(columns);
    return {};
  }
  template <class T> done_at_once begin_all_reduce(std::span<T> values) const {
    values[0] = T(3);
    return {};
  }
  template <class T> done_at_once begin_all_gather(std::span<const std::type_identity_t<T>>, std::span<T> all) const {
    all[0] = T(4);
    return {};
  }
};
struct without_sums : silent {
  void begin_all_reduce() = delete;
};
} // namespace

TEST_CASE("what a communicator is") {
  static_assert(hmoe::communicator<silent>);
  static_assert(!hmoe::communicator<without_sums>);
  static_assert(!hmoe::communicator<int>);
  static_assert(!hmoe::communicators::message_value<const float>);
  static_assert(!hmoe::communicators::summed_value<bool> && !hmoe::communicators::summed_value<long double>);
}

TEST_CASE("the forms that wait are made of those that begin") {
  const silent c;
  std::vector<float> values(1);
  const std::array<std::size_t, 1> rows{1};
  c.all_to_all(values, std::span(values));
  CHECK(values[0] == 1);
  c.all_to_all(values, rows, std::span(values), rows, 7);
  CHECK(values[0] == 7);
  c.all_to_all(values, rows, std::span(values), rows);
  CHECK(values[0] == 1); // a row is one value
  c.all_reduce(std::span(values));
  CHECK(values[0] == 3);
  c.all_gather(values, std::span(values));
  CHECK(values[0] == 4);
}

TEST_CASE("lengths that do not fit together are refused with the numbers") {
  namespace lengths = hmoe::communicators::lengths;
  using support::error_of;
  const std::array<std::size_t, 2> rows{3, 1};
  CHECK(error_of([&] { lengths::check_rows(2, "send", 8, rows, 2); }) == "no error");
  CHECK(error_of([&] { lengths::check_rows(3, "send", 8, rows, 2); }) ==
        "hmoe: all_to_all: send_rows has 2 numbers, there are 3 ranks");
  CHECK(error_of([&] { lengths::check_rows(2, "receive", 9, rows, 2); }) ==
        "hmoe: all_to_all: receive has 9 values, receive_rows are 4 rows of 2");
  CHECK(error_of([] { lengths::check_equal_parts(3, 6, 6); }) == "no error");
  CHECK(error_of([] { lengths::check_equal_parts(3, 6, 5); }) ==
        "hmoe: all_to_all of 6 values into 5 on 3 ranks: both must be the same multiple of the number of ranks");
  CHECK(error_of([] { lengths::check_equal_parts(3, 7, 7); }) ==
        "hmoe: all_to_all of 7 values into 7 on 3 ranks: both must be the same multiple of the number of ranks");
  CHECK(error_of([] { lengths::check_gathered(3, 2, 5); }) ==
        "hmoe: all_gather of 2 values on each of 3 ranks into 5: needed are 6");
}
