// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/kept_values.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <utility>
#include <vector>

using hmoe::kept_values;

TEST_CASE("copies of an array of one's own are arrays of their own; those of another's share it and its owner") {
  hmoe::buffer<int> own(3);
  own.fill(7);
  const int* at = own.data();
  kept_values<int> first(std::move(own));
  CHECK(first.data() == at);
  CHECK(first.owns());
  kept_values<int> copy = first;
  CHECK(copy.data() != at);
  CHECK(copy.view()[2] == 7);
  const kept_values<int> moved = std::move(first);
  CHECK(moved.data() == at);

  auto owner = std::make_shared<std::vector<int>>(4, 9);
  const std::weak_ptr<std::vector<int>> watched = owner;
  {
    kept_values<int> mapped(std::span<const int>(*owner), owner);
    const int* values = owner->data();
    owner.reset();
    CHECK(!mapped.owns());
    copy = mapped;
    const kept_values<int> taken = std::move(mapped);
    CHECK(taken.data() == values);
    CHECK(copy.data() == values);
    CHECK(taken.size() == 4);
  }
  CHECK(!watched.expired());
  CHECK(copy.view()[3] == 9);
  copy = kept_values<int>(hmoe::buffer<int>());
  CHECK(watched.expired());
  CHECK(copy.size() == 0);
}
