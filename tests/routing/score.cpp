// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/scores/linear.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

namespace routing = hmoe::routing;

namespace {
using plain = routing::linear<float, routing::sigmoid>;
struct around : routing::score_wrapper<plain> {
  explicit around(plain inner) : score_wrapper(std::move(inner)) {}
};
struct with_scratch {
  static void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) {
    const hmoe::buffer<double> scratch(tokens, memory);
  }
};
struct without_size : around {
  using around::around;
  void size() const = delete;
};
} // namespace

TEST_CASE("a score around another passes on what it does not change, its parameters too") {
  static_assert(hmoe::score<plain>);
  static_assert(hmoe::score<around>);
  static_assert(!hmoe::score<without_size>);
  static_assert(std::is_same_v<around::value_type, float>);
  around wrapped{plain(4, 3)};
  CHECK(wrapped.d_model() == 4);
  CHECK(wrapped.size() == 3);
  CHECK(wrapped.saved_per_token() == plain(4, 3).saved_per_token());
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(wrapped.function())>, routing::sigmoid>);

  wrapped.initialize(hmoe::seed{3}, 1, {.router_stddev = 2});
  plain alone(4, 3);
  alone.initialize(hmoe::seed{3}, 1, {.router_stddev = 2});
  std::size_t visited = 0;
  std::as_const(wrapped).visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<const float> view) {
    ++visited;
    CHECK(info.name == "router.weight");
    for (std::size_t e = 0; e < 3; ++e)
      for (std::size_t c = 0; c < 4; ++c)
        CHECK(view(e, c) == std::as_const(alone).weight()(e, c));
  });
  CHECK(visited == 1);
  wrapped.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<float> view) { view(0, 0) = 9; });
  CHECK(std::as_const(wrapped).inner().weight()(0, 0) == 9);
}

TEST_CASE("a part of a router that asks for no workspace gets none") {
  hmoe::workspace dry{hmoe::dry_run{}};
  const hmoe::workspace::scope scope(dry);
  routing::lay_out_part(plain(4, 3), &dry, std::size_t{8});
  routing::lay_out_part(with_scratch{}, &dry, std::size_t{8}, std::size_t{3}); // another list of sizes
  CHECK(dry.peak() == 0);
  routing::lay_out_part(with_scratch{}, &dry, std::size_t{8});
  CHECK(dry.peak() == 64);
}
