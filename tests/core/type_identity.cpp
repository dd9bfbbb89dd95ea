// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/core/type_identity.hpp>

#include <doctest/doctest.h>

#include <string_view>

using hmoe::detail::type_mark;
using hmoe::detail::type_name;

namespace identity_checks {
struct one {};
template <class T, int N> struct two {};
} // namespace identity_checks

TEST_CASE("a type has one mark, and no other type has it") {
  using identity_checks::one;
  const void* const mark = &type_mark<one>;
  CHECK(mark == &type_mark<one>);
  CHECK(mark != &type_mark<const one>);
  CHECK(mark != &type_mark<identity_checks::two<one, 1>>);
}

TEST_CASE("names of types are those in the source, without what the compiler writes around them") {
  static_assert(type_name<int>() == "int");
  static_assert(type_name<hmoe::error>() == "hmoe::error");
  // A group of tests is compiled in namespaces of its own, which stand before the names.
  static_assert(type_name<identity_checks::one>().ends_with("identity_checks::one"));
  const std::string_view name = type_name<identity_checks::two<float, 3>>();
  CHECK(name.ends_with("identity_checks::two<float, 3>"));
}
