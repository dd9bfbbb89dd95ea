// SPDX-License-Identifier: MIT
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <doctest/doctest.h>

using hmoe::index_t, hmoe::vector_view;

namespace {
struct of_double {
  using in = vector_view<const double>;
  void forward(in, in, vector_view<const index_t>, vector_view<double>) const {}
  void backward(in, in, vector_view<const index_t>, in, in, vector_view<double>, vector_view<double>) const {}
};
struct changes_itself : of_double {
  void forward(in, in, vector_view<const index_t>, vector_view<double>) {}
};
struct changes_the_choice : of_double {
  void forward(in, in, vector_view<index_t>, vector_view<double>) const {}
};
struct without_gradient_of_logits : of_double {
  void backward(in, in, vector_view<const index_t>, in, in, vector_view<double>) const {}
};
} // namespace

TEST_CASE("a weighting has both passes, const, over one row") {
  static_assert(hmoe::weighting<hmoe::routing::renormalized, float>);
  static_assert(hmoe::weighting<of_double, double>);
  static_assert(!hmoe::weighting<of_double, float>);
  static_assert(!hmoe::weighting<changes_itself, double>);
  static_assert(!hmoe::weighting<changes_the_choice, double>);
  static_assert(!hmoe::weighting<without_gradient_of_logits, double>);
}
