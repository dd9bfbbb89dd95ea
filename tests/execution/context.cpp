// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <utility>

using hmoe::context;
using hmoe::backends::reference;
using hmoe::executors::openmp;
using hmoe::executors::serial;

TEST_CASE("template arguments follow from what is passed") {
  static_assert(std::same_as<decltype(context{reference{}}), context<reference, serial>>);
  static_assert(std::same_as<decltype(context{reference{}, openmp{2}}), context<reference, openmp>>);
  static_assert(hmoe::execution_context<context<reference>>);
  static_assert(!hmoe::execution_context<reference>);
  static_assert(hmoe::backend<reference>);
  static_assert(!hmoe::backend<serial>);
  const context parallel{reference{}, openmp{2}};
  CHECK(parallel.executor().concurrency() == 2);
}

TEST_CASE("a context has a workspace of its own, or uses the caller's") {
  const context a{reference{}}, b{reference{}};
  CHECK(&a.workspace() != &b.workspace());
  hmoe::workspace shared(512);
  const context c{reference{}, serial{}, shared};
  CHECK(&c.workspace() == &shared);
  CHECK(c.workspace().capacity() == 512);
}

TEST_CASE("moving a context moves its memory with it") {
  context first{reference{}};
  first.workspace().reserve(1024);
  const hmoe::workspace* memory = &first.workspace();
  const context second = std::move(first);
  CHECK(&second.workspace() == memory);
  CHECK(second.workspace().capacity() == 1024);
}
