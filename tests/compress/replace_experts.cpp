// SPDX-License-Identifier: MIT
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/replace_experts.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;
using list = std::vector<std::size_t>;

namespace {
/// y of the calibration's last batch, where expert e's outputs for a token are other(e, outputs of the layer).
template <class F>
matrix<double> expected(const support::calibration_run<support::calibrated_layer>& run, const F& other) {
  const auto& tape = run.tapes[2];
  matrix<double> y(tape.assignment().tokens(), d);
  for (std::size_t t = 0; t < y.rows(); ++t)
    for (std::size_t a = tape.assignment().offsets()[t]; a < tape.assignment().offsets()[t + 1]; ++a)
      for (std::size_t i = 0; i < d; ++i)
        y(t, i) += tape.assignment().weights()[a] *
                   other(tape.assignment().experts()[a], tape.expert_output()(tape.plan().slots()[a], i), i);
  return y;
}
} // namespace

TEST_CASE("constants are the mean outputs under the old ids, dropped experts return 0, and weights stay") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  std::vector<double> mean_2(d), mean_4(d);
  for (std::size_t i = 0; i < d; ++i) {
    double rows_2 = 0, rows_4 = 0;
    for (const auto& tape : run.tapes)
      for (std::size_t a = 0; a < tape.assignment().size(); ++a) {
        const double out = tape.expert_output()(tape.plan().slots()[a], i);
        if (tape.assignment().experts()[a] == 2)
          mean_2[i] += out, ++rows_2;
        if (tape.assignment().experts()[a] == 4)
          mean_4[i] += out, ++rows_4;
      }
    mean_2[i] /= rows_2;
    mean_4[i] /= rows_4;
  }
  auto constants = compress::replace_by_constants(layer, run.sums, {4, 2});
  CHECK(constants.layer.experts().ids().of_bank == std::vector<list>{{0, 3}, {1}, {2, 4}});
  CHECK(constants.report.widths == list{5, 4, 0, 6, 0});
  CHECK(constants.report.parameters == constants.report.parameters_before - (3 * 17 + 5) - 60 + 2 * d);
  matrix<double> y(12, d);
  constants.layer.forward(cpu, run.x[2], y);
  const auto with_means = expected(run, [&](std::size_t e, double out, std::size_t i) {
    return e == 2 ? mean_2[i] : e == 4 ? mean_4[i] : out;
  });
  CHECK(support::largest_difference(y.view(), with_means.view()) < 1e-14);
  auto dropped = compress::drop_experts(layer, run.sums, {2, 4});
  dropped.layer.forward(cpu, run.x[2], y);
  const auto without =
      expected(run, [&](std::size_t e, double out, std::size_t) { return e == 2 || e == 4 ? 0 : out; });
  CHECK(support::largest_difference(y.view(), without.view()) < 1e-14);
  CHECK(dropped.report.widths == list{5, 4, 0, 6, 0});
  CHECK(dropped.report.flops < dropped.report.flops_before);

  CHECK(support::error_of([&] { (void)compress::replace_by_constants(layer, run.sums, {1, 4}); }) ==
        "hmoe: all experts of bank 1 shall become constants: a bank needs one that stays");
  CHECK(support::error_of([&] { (void)compress::drop_experts(layer, run.sums, {5}); }) ==
        "hmoe: expert 5 shall be replaced, the layer has 5");
  CHECK(support::error_of([&] { (void)compress::drop_experts(constants.layer, run.sums, {1, 1}); }) ==
        "hmoe: expert 1 shall be replaced twice");
}

TEST_CASE("the change that a replaced expert makes is exact on the tokens of the calibration") {
  const auto layer = support::make_calibrated_layer();
  support::random_source random(14);
  const auto x = support::random_matrix<double>(random, 40, d);
  compress::calibration sums{layer};
  matrix<double> y(40, d);
  auto tape = layer.make_tape(40);
  layer.forward(cpu, x, y, tape);
  sums.add(layer, tape);
  const auto constant = compress::change_by_constant(sums), zero = compress::change_by_zero(sums);
  for (std::size_t e = 0; e < 5; ++e) {
    auto mean = compress::replace_by_constants(layer, sums, {e});
    auto dropped = compress::drop_experts(layer, sums, {e});
    CHECK(mean.measure(cpu, layer, x).squared == doctest::Approx(constant[e]));
    CHECK(dropped.measure(cpu, layer, x).squared == doctest::Approx(zero[e]));
    CHECK(*mean.report.predicted == constant[e]);
    CHECK(*dropped.report.predicted == zero[e]);
    CHECK(constant[e] < zero[e]);
  }
  CHECK(compress::least_important({3, 1, 2, 1, 5}, 3) == list{1, 2, 3});
}
