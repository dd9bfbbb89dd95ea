// SPDX-License-Identifier: MIT
#include <hmoe/fwd.hpp>

#include <cstddef>

// A header that names the library's types can do with the declarations alone.
namespace {
template <class Experts, class Router, class Dispatch>
std::size_t width_of(const hmoe::moe_layer<Experts, Router, Dispatch>& layer, std::size_t expert);
std::size_t values_of(const hmoe::matrix<float>& m);
std::size_t values_of(hmoe::matrix_view<const float> view);
} // namespace

#include <hmoe/hmoe.hpp>

#include <doctest/doctest.h>

namespace {
template <class Experts, class Router, class Dispatch>
std::size_t width_of(const hmoe::moe_layer<Experts, Router, Dispatch>& layer, std::size_t expert) {
  return layer.widths()[expert];
}
std::size_t values_of(const hmoe::matrix<float>& m) { return m.size(); }
std::size_t values_of(hmoe::matrix_view<const float> view) { return view.size(); }
} // namespace

TEST_CASE("declarations alone name the same types as the headers") {
  const hmoe::matrix<float> m(2, 3);
  CHECK(values_of(m) == 6);
  CHECK(values_of(m.view()) == 6);
  const hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>{4, {1, 3}}},
                              hmoe::routing::top_k_router<float>{4, 2, 1}};
  CHECK(width_of(layer, 1) == 3);
}
