// SPDX-License-Identifier: MIT
#include <hmoe/core/products.hpp>

#include <doctest/doctest.h>

using hmoe::matrix_products;
using hmoe::matrix_view;

namespace {

struct complete {
  void multiply_transposed(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) const {}
  void multiply(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) const {}
  void accumulate(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) const {}
  void accumulate_transposed(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) const {}
};
struct changes_itself : complete {
  void accumulate(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) {}
};
struct writes_inputs : complete {
  void multiply(matrix_view<float>, matrix_view<const float>, matrix_view<float>) const {}
};
struct lacks_three {
  void multiply(matrix_view<const float>, matrix_view<const float>, matrix_view<float>) const {}
};

} // namespace

TEST_CASE("the concept accepts the four products on const inputs by a const object, and nothing less") {
  static_assert(matrix_products<complete, float>);
  static_assert(!matrix_products<complete, double>);
  static_assert(!matrix_products<changes_itself, float>);
  static_assert(!matrix_products<writes_inputs, float>);
  static_assert(!matrix_products<lacks_three, float>);
  static_assert(!matrix_products<int, float>);
}
