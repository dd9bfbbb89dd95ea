// SPDX-License-Identifier: MIT
#include <hmoe/core/owned.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <type_traits>
#include <utility>

using hmoe::detail::owned;

namespace {
struct shape {
  explicit shape(int& alive) : living(alive) { ++living; }
  shape(const shape& other) : living(other.living) { ++living; }
  shape& operator=(const shape&) = delete;
  virtual ~shape() { --living; }
  [[nodiscard]] virtual owned<shape> clone() const = 0;
  [[nodiscard]] virtual int sides() const = 0;
  int& living;
};
struct square final : shape {
  using shape::shape;
  [[nodiscard]] owned<shape> clone() const override { return owned<shape>(new square(*this)); }
  [[nodiscard]] int sides() const override { return 4; }
};
} // namespace

TEST_CASE("copies of an owner are deep, moves hand the object over, and each object ends once") {
  static_assert(std::copyable<owned<shape>> && std::is_nothrow_move_constructible_v<owned<shape>>);
  int alive = 0;
  {
    owned<shape> first(new square(alive));
    const owned<shape> second = first;
    CHECK(alive == 2);
    CHECK(first.get() != second.get());
    CHECK(second->sides() == 4);
    const shape* object = first.get();
    owned<shape> third = std::move(first);
    CHECK(third.get() == object);
    CHECK(first.get() == nullptr); // NOLINT: what a moved-from owner has
    third = second;
    CHECK(alive == 2);
    CHECK(third.get() != second.get());
    third = std::move(third); // NOLINT: to itself
    CHECK(alive == 2);
    first = std::move(third);
    CHECK(first->sides() == 4);
  }
  CHECK(alive == 0);
}

TEST_CASE("an owner that is not copied can be moved only") {
  using moved = owned<square, false>;
  static_assert(std::movable<moved>);
  static_assert(!std::is_copy_constructible_v<moved> && !std::is_copy_assignable_v<moved>);
}
