// SPDX-License-Identifier: MIT
#include <hmoe/experts/bank.hpp>

#include "experts/bank_checks.hpp"
#include "experts/diagonal_expert.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <vector>

using bank_checks::diagonal_expert;
using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::experts::bank_of;

namespace {

// A kind that says more of itself than it must.
class wordy_expert : public diagonal_expert<float> {
public:
  using diagonal_expert::diagonal_expert;
  [[nodiscard]] static std::size_t width() { return 11; }
  [[nodiscard]] static double flops_per_row() { return 123; }
  void backward(matrix_view<const float> x, matrix_view<const float> dy, matrix_view<float> dx,
                wordy_expert& gradients) const {
    diagonal_expert::backward(x, dy, dx, gradients);
  }
  void initialize(hmoe::seed key, std::uint64_t stream, const hmoe::initialization&) {
    visit_parameters([&](const hmoe::parameter_info&, matrix_view<float> view) {
      std::ranges::fill(view.row(0), static_cast<float>(key.value * 1000 + stream));
    });
  }
};

struct without_backward {
  using value_type = float;
  [[nodiscard]] static std::size_t d_model() { return 1; }
  void forward(matrix_view<const float>, matrix_view<float>) const {}
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

} // namespace

TEST_CASE("a single expert becomes a bank") {
  static_assert(hmoe::expert<diagonal_expert<float>>);
  static_assert(!hmoe::expert_bank<diagonal_expert<float>>);
  static_assert(hmoe::expert_bank<bank_of<diagonal_expert<float>>>);
  static_assert(hmoe::expert_bank<bank_of<wordy_expert>>);
  static_assert(!hmoe::expert<without_backward>);
  static_assert(!hmoe::expert<int>);
  static_assert(std::convertible_to<diagonal_expert<float>, bank_of<diagonal_expert<float>>>);

  const bank_of bank(diagonal_expert<float>(5));
  CHECK(bank.size() == 1);
  CHECK(bank.d_model() == 5);
  CHECK(bank.width(0) == 0); // no meaning here
  CHECK(bank.saved_per_row(0) == 0);
  CHECK(bank.parameter_count(0) == 10);
  CHECK(bank.flops_per_row(0) == 20.0);

  const bank_of wordy(wordy_expert(5));
  CHECK(wordy.width(0) == 11);
  CHECK(wordy.flops_per_row(0) == 123);
}

TEST_CASE("several experts: each computes with its own weights and collects its own gradients") {
  support::random_source random(81);
  bank_of bank(std::vector(3, diagonal_expert<double>(4)));
  CHECK(bank_checks::signature(bank) == std::vector<std::string>{"0 scale 1x4 decay", "0 shift 1x4",
                                                                 "1 scale 1x4 decay", "1 shift 1x4",
                                                                 "2 scale 1x4 decay", "2 shift 1x4"});
  bank_checks::randomize(bank, random);
  const auto x = support::random_matrix<double>(random, 3, 4);
  for (std::size_t e = 0; e < 3; ++e) {
    const auto w = bank_checks::tensors_of(bank, e);
    const auto y = bank_checks::forward(bank, e, x);
    for (std::size_t t = 0; t < 3; ++t)
      for (std::size_t c = 0; c < 4; ++c)
        CHECK(y(t, c) == doctest::Approx(w.at("scale")(0, c) * x(t, c) + w.at("shift")(0, c)));
    for (const std::size_t rows : {0U, 1U, 5U})
      CHECK(bank_checks::gradient_error(bank, e, rows, random) < 1e-6);
  }
  matrix<double> y(3, 4);
  bank[2].forward(x, y);
  CHECK(support::largest_difference(y.view(), bank_checks::forward(bank, 2, x).view()) == 0);
}

TEST_CASE("initialisation: fan-in for tensors with decay, zero for the others, a stream of its own each") {
  bank_of bank(std::vector(2, diagonal_expert<double>(4000)));
  bank.initialize(hmoe::seed{1}, 32, {});
  for (std::size_t e = 0; e < 2; ++e) {
    const auto w = bank_checks::tensors_of(bank, e);
    double square = 0;
    for (std::size_t i = 0; i < 4000; ++i) {
      square += w.at("scale")(0, i) * w.at("scale")(0, i);
      CHECK(w.at("shift")(0, i) == 0);
    }
    CHECK(square == doctest::Approx(1).epsilon(0.1)); // 4000 values of variance 1/4000
  }
  CHECK(bank_checks::tensors_of(bank, 0).at("scale")(0, 0) != bank_checks::tensors_of(bank, 1).at("scale")(0, 0));

  bank_of wordy(std::vector(2, wordy_expert(1)));
  wordy.initialize(hmoe::seed{2}, 32, {});
  CHECK(bank_checks::tensors_of(wordy, 0).at("scale")(0, 0) == 2032);
  CHECK(bank_checks::tensors_of(wordy, 1).at("scale")(0, 0) == 2032 + hmoe::experts::streams_per_expert);
}

TEST_CASE("experts that do not fit together are refused with both numbers") {
  using several = std::vector<diagonal_expert<float>>;
  CHECK_THROWS_WITH_AS(bank_of(several{}), "hmoe: a bank of experts needs at least one expert", hmoe::error);
  CHECK_THROWS_WITH_AS(
      bank_of(several{diagonal_expert<float>(3), diagonal_expert<float>(3), diagonal_expert<float>(4)}),
      "hmoe: expert 2 has d_model 4, the first one 3", hmoe::error);
}
