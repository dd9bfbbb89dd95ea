// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selection.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/selections/top_k.hpp>

#include <doctest/doctest.h>

#include <memory_resource>

using hmoe::index_t, hmoe::matrix_view, hmoe::vector_view;

namespace {
struct of_double {
  void operator()(const hmoe::router_trace<double>&, matrix_view<index_t>, vector_view<index_t>,
                  std::pmr::memory_resource*) const {}
};
struct changes_the_trace {
  void operator()(hmoe::router_trace<float>&, matrix_view<index_t>, vector_view<index_t>,
                  std::pmr::memory_resource*) const {}
};
struct changes_itself {
  void operator()(const hmoe::router_trace<float>&, matrix_view<index_t>, vector_view<index_t>,
                  std::pmr::memory_resource*) {}
};
struct without_memory {
  void operator()(const hmoe::router_trace<float>&, matrix_view<index_t>, vector_view<index_t>) const {}
};
} // namespace

TEST_CASE("a selection over a batch reads the trace, and is none over a row") {
  static_assert(hmoe::batch_selection<hmoe::routing::expert_choice, float>);
  static_assert(hmoe::batch_selection<of_double, double>);
  static_assert(!hmoe::batch_selection<of_double, float>);
  static_assert(!hmoe::batch_selection<changes_the_trace, float>);
  static_assert(!hmoe::batch_selection<changes_itself, float>);
  static_assert(!hmoe::batch_selection<without_memory, float>);
  static_assert(!hmoe::batch_selection<hmoe::routing::top_k<>, float>);
}
