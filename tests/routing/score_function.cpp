// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>

#include <doctest/doctest.h>

#include <vector>

using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
struct doubled {
  template <class T> static void forward(vector_view<const T> z, vector_view<T> p) {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = 2 * z[i];
  }
  template <class T>
  static void backward(vector_view<const T>, vector_view<const T>, vector_view<const T>, vector_view<T>) {}
};
struct without_backward {
  template <class T> static void forward(vector_view<const T>, vector_view<T>) {}
};
/// Scores in a way of its own.
struct eighths : hmoe::backends::reference {
  template <class Function, class T> void score(const Function&, vector_view<const T>, vector_view<T> p) const {
    for (T& v : p)
      v = T(0.125);
  }
};
} // namespace

TEST_CASE("what is a score function") {
  static_assert(hmoe::score_function<doubled, float>);
  static_assert(hmoe::score_function<routing::sigmoid, double>);
  static_assert(!hmoe::score_function<without_backward, float>);
  static_assert(!hmoe::score_function<int, float>);
}

TEST_CASE("a row is scored by the backend where it has the operation, else by the function") {
  const std::vector<double> z{1, -2};
  std::vector<double> p(2);
  const auto score = [&](const auto& backend, const auto& function) {
    routing::score_row(backend, function, vector_view<const double>(z), vector_view<double>(p));
    return p;
  };
  CHECK(score(eighths{}, doubled{}) == std::vector<double>{0.125, 0.125});
  CHECK(score(hmoe::backends::reference{}, doubled{}) == std::vector<double>{2, -4});
}
