// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>

#include "experts/bank_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

using hmoe::matrix;
using namespace hmoe::experts;

namespace {

// One expert as a checkpoint has it: transposed, gate in the even columns of gate_up, up in the odd ones.
struct checkpoint {
  matrix<double> gate_up, gate_up_bias, down, down_bias; // [d×2h], [1×2h], [h×d], [1×d]
};

std::vector<double> run(const checkpoint& c, hmoe::vector_view<const double> x, double limit, double alpha) {
  const std::size_t h = c.down.rows(), d = c.down.cols();
  std::vector<double> projected(2 * h), y(d);
  for (std::size_t j = 0; j < 2 * h; ++j) {
    projected[j] = c.gate_up_bias(0, j);
    for (std::size_t i = 0; i < d; ++i)
      projected[j] += x[i] * c.gate_up(i, j);
  }
  for (std::size_t i = 0; i < d; ++i)
    y[i] = c.down_bias(0, i);
  for (std::size_t j = 0; j < h; ++j) {
    const double gate = std::min(projected[2 * j], limit), up = std::clamp(projected[2 * j + 1], -limit, limit);
    const double glu = gate / (1 + std::exp(-alpha * gate));
    for (std::size_t i = 0; i < d; ++i)
      y[i] += (up + 1) * glu * c.down(j, i);
  }
  return y;
}

} // namespace

TEST_CASE("an expert loaded from the interleaved checkpoint computes what the model does") {
  support::random_source random(13);
  const std::size_t d = 6;
  for (const gpt_oss_gate gate : {gpt_oss_gate{}, gpt_oss_gate{0.8, 1.1}}) { // with the second, many values are clamped
    gpt_oss_glu_bank<double> bank(d, {3, 5}, gate);
    CHECK(bank.gate_function().limit == gate.limit);
    for (std::size_t e = 0; e < 2; ++e) {
      const std::size_t h = bank.width(e);
      const auto draw = [&](std::size_t rows, std::size_t cols) {
        return support::random_matrix<double>(random, rows, cols, 1.5);
      };
      const checkpoint c{draw(d, 2 * h), draw(1, 2 * h), draw(h, d), draw(1, d)};
      for (std::size_t i = 0; i < h; ++i)
        for (std::size_t j = 0; j < d; ++j) {
          bank.gate(e)(i, j) = c.gate_up(j, 2 * i);
          bank.up(e)(i, j) = c.gate_up(j, 2 * i + 1);
          bank.down(e)(j, i) = c.down(i, j);
        }
      bank.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
        if (info.expert != e)
          return;
        for (std::size_t i = 0; i < view.cols(); ++i) {
          if (info.name == "gate_bias")
            view(0, i) = c.gate_up_bias(0, 2 * i);
          if (info.name == "up_bias")
            view(0, i) = c.gate_up_bias(0, 2 * i + 1);
          if (info.name == "down_bias")
            view(0, i) = c.down_bias(0, i);
        }
      });
      const auto x = support::random_matrix<double>(random, 7, d, 2);
      const auto y = bank_checks::forward(bank, e, x);
      for (std::size_t t = 0; t < 7; ++t) {
        const auto expected = run(c, x.row(t), gate.limit, gate.alpha);
        for (std::size_t i = 0; i < d; ++i)
          CHECK(y(t, i) == doctest::Approx(expected[i]).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE("gradients of gpt-oss experts agree with finite differences, clamped values among them") {
  support::random_source random(20); // a draw without a value so near to a limit that the differences straddle it
  for (const gpt_oss_gate gate : {gpt_oss_gate{}, gpt_oss_gate{0.5, 1.702}})
    for (std::size_t e = 0; e < 2; ++e)
      CHECK(bank_checks::gradient_error(gpt_oss_glu_bank<double>(4, {1, 3}, gate), e, 4, random) <= 1e-6);
}

TEST_CASE("gpt_oss_glu_bank has biases unless told otherwise") {
  gpt_oss_glu_bank<float> bank(4, {2});
  CHECK(bank_checks::signature(bank) == std::vector<std::string>{"0 gate 2x4 decay", "0 up 2x4 decay",
                                                                 "0 down 4x2 decay", "0 gate_bias 1x2", "0 up_bias 1x2",
                                                                 "0 down_bias 1x4"});
  gpt_oss_glu_bank<float> bare(4, {2}, {}, biases::none);
  CHECK(bank_checks::signature(bare).size() == 3);
}

TEST_CASE("a GLU takes its gate's parameters, and refuses bad ones") {
  const glu_bank<double, gpt_oss_gate> bank(4, {2}, biases::none, {3, 1});
  CHECK(bank.gate_function().limit == 3);
  CHECK_THROWS_WITH_AS((gpt_oss_glu_bank<float>(4, {2}, {-1, 2})),
                       "hmoe: gpt_oss_gate with limit = -1 and alpha = 2: the limit must be above 0 (infinite: no "
                       "clamping) and alpha finite",
                       hmoe::error);
}
