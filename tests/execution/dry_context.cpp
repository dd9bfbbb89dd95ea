// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

namespace {
/// The same code, wet and dry.
template <hmoe::execution_context Context> void take(const Context& ctx) {
  const typename Context::workspace_scope scope(ctx.workspace());
  const hmoe::buffer<double> list(7, &ctx.workspace());
  for (int i = 0; i < 3; ++i) {
    const typename Context::workspace_scope turn(ctx.workspace());
    const auto rows = hmoe::matrix<float>::for_overwrite(100, 33, &ctx.workspace());
  }
}
} // namespace

TEST_CASE("a dry context counts what the same code takes from a real one, and has no memory") {
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  take(ctx);
  const hmoe::dry_context dry(ctx);
  static_assert(hmoe::execution_context<hmoe::dry_context<decltype(ctx)>>);
  CHECK(&dry.executor() == &ctx.executor());
  CHECK(&dry.backend() == &ctx.backend());
  take(dry);
  CHECK(dry.workspace().peak() == memory.peak());
  CHECK(memory.peak() == 64 + 100 * 33 * sizeof(float) + 48); // aligned to 64
  CHECK(dry.workspace().capacity() == 0);

  // More than any machine has is counted, too.
  const hmoe::workspace::scope scope(dry.workspace());
  const hmoe::buffer<double> huge(std::size_t{1} << 50U, &dry.workspace());
  CHECK(dry.workspace().peak() == (std::size_t{1} << 53U));
  CHECK(support::error_of([&] { dry.workspace().reserve(100); }).find("while a pass is using the workspace") !=
        std::string::npos);
}
