// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/identity.hpp>

#include "experts/bank_checks.hpp"
#include "experts/diagonal_expert.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using bank_checks::diagonal_expert;
using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::experts::any_expert;
using hmoe::experts::bank_of;

namespace {

/// y = x² + s, with all optional members.
class square_expert {
public:
  using value_type = double;
  explicit square_expert(std::size_t d_model) : shift_(1, d_model) {}

  [[nodiscard]] std::size_t d_model() const { return shift_.cols(); }
  [[nodiscard]] static std::size_t width() { return 17; }
  [[nodiscard]] static double flops_per_row() { return 123; }
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c)
        y(r, c) = x(r, c) * x(r, c) + shift_(0, c);
  }
  void backward(matrix_view<const double> x, matrix_view<const double> dy, matrix_view<double> dx,
                square_expert& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c) {
        dx(r, c) = 2 * x(r, c) * dy(r, c);
        gradients.shift_(0, c) += dy(r, c);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(hmoe::parameter_info{"s"}, shift_.view()); }
  void initialize(hmoe::seed, std::uint64_t stream, const hmoe::initialization&) {
    for (std::size_t c = 0; c < d_model(); ++c)
      shift_(0, c) = static_cast<double>(stream);
  }

private:
  matrix<double> shift_;
};

double first_value(any_expert<double>& expert) {
  double result = 0;
  bool first = true;
  expert.visit_parameters([&](const hmoe::parameter_info&, matrix_view<double> view) {
    if (std::exchange(first, false))
      result = view(0, 0);
  });
  return result;
}

} // namespace

static_assert(hmoe::expert<any_expert<float>>);
static_assert(hmoe::expert_bank<bank_of<any_expert<double>>>);
static_assert(
    !std::constructible_from<any_expert<float>, hmoe::experts::identity_bank<float>>); // a bank, not an expert

TEST_CASE("any_expert is the expert that it holds") {
  support::random_source random(15);
  diagonal_expert<double> plain(5);
  plain.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const any_expert<double> any(plain);
  const auto x = support::random_matrix<double>(random, 4, 5), dy = support::random_matrix<double>(random, 4, 5);
  matrix<double> y(4, 5), expected(4, 5), dx(4, 5), expected_dx(4, 5);
  plain.forward(x.view(), expected.view());
  any.forward(x.view(), y.view());
  CHECK(support::largest_difference(y.view(), expected.view()) == 0);
  diagonal_expert<double> gradients(5);
  any_expert<double> any_gradients{diagonal_expert<double>(5)};
  plain.backward(x.view(), dy.view(), expected_dx.view(), gradients);
  any.backward(x.view(), dy.view(), dx.view(), any_gradients);
  CHECK(support::largest_difference(dx.view(), expected_dx.view()) == 0);
  const auto held = bank_checks::tensors_of(bank_of(*any_gradients.get_if<diagonal_expert<double>>()), 0);
  for (const auto& [name, tensor] : bank_checks::tensors_of(bank_of(gradients), 0))
    CHECK(support::largest_difference(held.at(name).view(), tensor.view()) == 0);
}

TEST_CASE("copies are deep, moves are not copies") {
  any_expert<double> first{square_expert(2)};
  first.initialize({}, 5, {});
  any_expert<double> second = first;
  second.initialize({}, 6, {});
  CHECK(first_value(first) == 5);
  CHECK(first_value(second) == 6);
  const auto* held = second.get_if<square_expert>();
  const any_expert<double> third = std::move(second);
  CHECK(third.get_if<square_expert>() == held);
  CHECK(third.get_if<diagonal_expert<double>>() == nullptr);
  second = first; // a moved-from object takes a new value
  CHECK(first_value(second) == 5);
}

TEST_CASE("optional members are those of the held expert, or the defaults of a bank") {
  const any_expert<double> all{square_expert(2)}, none{diagonal_expert<double>(3)};
  CHECK(all.width() == 17);
  CHECK(all.flops_per_row() == 123);
  CHECK(none.width() == 0);
  CHECK(none.flops_per_row() == 12); // two for each of its six weights
  bank_of<diagonal_expert<double>> plain{diagonal_expert<double>(3)};
  bank_of<any_expert<double>> any{none};
  plain.initialize(hmoe::seed{3}, 32, {});
  any.initialize(hmoe::seed{3}, 32, {});
  const auto expected = bank_checks::tensors_of(plain, 0);
  for (const auto& [name, tensor] : bank_checks::tensors_of(any, 0))
    CHECK(support::largest_difference(tensor.view(), expected.at(name).view()) == 0);
}

TEST_CASE("experts of different kinds share a bank and an expert_set") {
  std::vector<any_expert<double>> kinds{any_expert<double>{diagonal_expert<double>(3)},
                                        any_expert<double>{square_expert(3)}};
  hmoe::expert_set set{hmoe::experts::identity_bank<double>(3), bank_of(std::move(kinds))};
  CHECK(set.size() == 3);
  CHECK(set.width(2) == 17);
  set.initialize(hmoe::seed{1}, 0, {});
  CHECK(bank_checks::signature(set) == std::vector<std::string>{"1 scale 1x3 decay", "1 shift 1x3", "2 s 1x3 decay"});
  support::random_source random(16);
  CHECK(bank_checks::gradient_error(set, 1, 4, random) <= 1e-6);
  CHECK(bank_checks::gradient_error(set, 2, 4, random) <= 1e-6);
}

TEST_CASE("gradients of another kind are refused") {
  const any_expert<double> expert{square_expert(2)};
  any_expert<double> gradients{diagonal_expert<double>(2)};
  const matrix<double> x(1, 2);
  matrix<double> dx(1, 2);
  CHECK_THROWS_AS(expert.backward(x.view(), x.view(), dx.view(), gradients), hmoe::error);
  try {
    expert.backward(x.view(), x.view(), dx.view(), gradients);
  } catch (const hmoe::error& e) {
    CHECK(std::string(e.what()).find("hold an expert of another kind") != std::string::npos);
    CHECK(std::string(e.what()).find("square_expert") != std::string::npos);
  }
}
