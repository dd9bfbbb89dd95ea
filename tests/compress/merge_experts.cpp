// SPDX-License-Identifier: MIT
#include <hmoe/compress/merge_experts.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace compress = hmoe::compress;
using compress::merge_share;
using compress::neuron_alignment;
using hmoe::matrix;
using support::cpu;
using support::d;
using list = std::vector<std::size_t>;

namespace {
/// All numbers of neuron j of an expert in one list: input rows, biases, output column.
template <class Weights> std::vector<double> neuron(const Weights& w, std::size_t e, std::size_t j, std::size_t lanes) {
  std::vector<double> all;
  for (std::size_t l = 0; l < lanes; ++l) {
    all.insert(all.end(), w.lane(e, l).row(j).begin(), w.lane(e, l).row(j).end());
    if (w.has_biases())
      all.push_back(w.lane_bias(e, l)(0, j));
  }
  for (std::size_t k = 0; k < d; ++k)
    all.push_back(w.output(e)(k, j));
  return all;
}
/// The mean of a narrow and a wide expert by trying all alignments: a[i] is the neuron of the narrow one, or past its
/// end.
template <class Weights>
void check_mean(const Weights& from, std::size_t narrow, std::size_t wide, double share_of_narrow,
                const Weights& merged, std::size_t at, std::size_t lanes) {
  const std::size_t h = from.width(wide);
  REQUIRE(merged.width(at) == h);
  list order(h), best;
  std::iota(order.begin(), order.end(), std::size_t{0});
  double largest = -1e300;
  do {
    double sum = 0;
    for (std::size_t i = 0; i < h; ++i)
      if (order[i] < from.width(narrow)) {
        const auto a = neuron(from, narrow, order[i], lanes), b = neuron(from, wide, i, lanes);
        sum += std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
      }
    if (sum > largest) {
      largest = sum;
      best = order;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  for (std::size_t i = 0; i < h; ++i) {
    const auto now = neuron(merged, at, i, lanes), b = neuron(from, wide, i, lanes);
    const bool both = best[i] < from.width(narrow);
    const auto a = both ? neuron(from, narrow, best[i], lanes) : std::vector<double>(b.size(), 0.0);
    for (std::size_t k = 0; k < now.size(); ++k) {
      const bool output = k + d >= now.size();
      const double share = both || output ? share_of_narrow : 0.0;
      CHECK(now[k] == doctest::Approx(share * a[k] + (1 - share) * b[k]).epsilon(1e-13));
    }
  }
  if (from.has_biases())
    for (std::size_t k = 0; k < d; ++k)
      CHECK(merged.output_bias(at)(0, k) == doctest::Approx(share_of_narrow * from.output_bias(narrow)(0, k) +
                                                            (1 - share_of_narrow) * from.output_bias(wide)(0, k)));
}
} // namespace

TEST_CASE("a merged layer is the one made by hand: aligned means under the old ids, in memory once") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto rows = [&](std::size_t e) { return static_cast<double>(run.sums.expert(e).rows); };
  auto merged = compress::merge_experts(layer, run.sums, {{4, 1}, {0, 3}});
  const auto of = merged.layer.experts().bank<0>().stored_of();
  CHECK(list(of.begin(), of.end()) == list{0, 1, 0});
  const auto& glus = layer.experts().bank<0>().weights(); // widths 5, 3, 6 of ids 0, 2, 3
  const auto& stored = merged.layer.experts().bank<0>().stored().bank<0>().weights();
  check_mean(glus, 0, 2, rows(0) / (rows(0) + rows(3)), stored, 0, 2);
  const auto& mlps = layer.experts().bank<1>().weights(); // widths 4, 6 of ids 1, 4
  check_mean(mlps, 0, 1, rows(1) / (rows(1) + rows(4)), merged.layer.experts().bank<1>().stored().bank<0>().weights(),
             0, 1);
  const auto equal = compress::merge_experts(layer, run.sums, {{1, 4}}, {.share = merge_share::equal});
  check_mean(mlps, 0, 1, 0.5, equal.layer.experts().bank<1>().stored().bank<0>().weights(), 0, 1);

  CHECK(merged.report.widths == list{6, 6, 3, 6, 6});
  CHECK(merged.report.parameters == 9 * 17 + 2 * d + 6 * 10);
  CHECK(merged.report.bytes == merged.report.parameters * sizeof(double));
  CHECK(merged.report.bytes_before == (14 * 17 + 3 * d + 100) * sizeof(double));
  CHECK_FALSE(merged.report.predicted.has_value());
  // The router's choices and weights stay: the layer of copies gives the same.
  using copies_layer = support::calibrated_layer;
  const copies_layer copies{hmoe::expert_set{layer.experts().ids(), merged.layer.experts().bank<0>().separate(),
                                             merged.layer.experts().bank<1>().separate()},
                            layer.router()};
  matrix<double> y(12, d), expected(12, d);
  merged.layer.forward(cpu, run.x[2], y);
  copies.forward(cpu, run.x[2], expected);
  CHECK(support::same_bits(y, expected));
  CHECK(merged.measure(cpu, layer, run.x[2]).squared > 0);
}

TEST_CASE(
    "merging experts that are equal changes nothing, or rounding alone where their neurons are in another order") {
  auto layer = support::make_calibrated_layer();
  layer = support::calibrated_layer{hmoe::expert_set{layer.experts().ids(),
                                                     support::glu(d, {4, 4, 6}, hmoe::experts::biases::all),
                                                     support::mlp(d, {4, 6})},
                                    layer.router()};
  support::randomize(layer, 8);
  auto& weights = layer.experts().bank<0>().weights();
  const auto copy = [&](const list& order) {
    for (std::size_t i = 0; i < 4; ++i)
      for (std::size_t l = 0; l < 2; ++l) {
        weights.lane_bias(1, l)(0, order[i]) = weights.lane_bias(0, l)(0, i);
        for (std::size_t k = 0; k < d; ++k) {
          weights.lane(1, l)(order[i], k) = weights.lane(0, l)(i, k);
          weights.output(1)(k, order[i]) = weights.output(0)(k, i);
          weights.output_bias(1)(0, k) = weights.output_bias(0)(0, k);
        }
      }
  };
  const auto change = [&](neuron_alignment aligned) {
    const support::calibration_run run(layer);
    auto merged = compress::merge_experts(layer, run.sums, {{0, 2}}, {.aligned = aligned});
    return merged.measure(cpu, layer, run.x[2]);
  };
  copy({0, 1, 2, 3});
  CHECK(change(neuron_alignment::by_index).largest == 0);
  CHECK(change(neuron_alignment::similar).largest == 0);
  copy({2, 0, 3, 1});
  CHECK(change(neuron_alignment::similar).largest < 1e-13);
  CHECK(change(neuron_alignment::by_index).largest > 0.1);
}

TEST_CASE(
    "three experts of unequal width: a neuron's rows are the mean of those that have it, its output counts none as 0") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto merged =
      compress::merge_experts(layer, run.sums, {{0, 2, 3}}, {.aligned = neuron_alignment::by_index}); // widths 5, 3, 6
  const auto& from = layer.experts().bank<0>().weights();
  const auto& to = merged.layer.experts().bank<0>().stored().bank<0>().weights();
  REQUIRE(to.size() == 1);
  std::vector<double> rows{static_cast<double>(run.sums.expert(0).rows), static_cast<double>(run.sums.expert(2).rows),
                           static_cast<double>(run.sums.expert(3).rows)};
  const double all = rows[0] + rows[1] + rows[2];
  for (std::size_t i = 0; i < 6; ++i)
    for (std::size_t k = 0; k < d; ++k) {
      double input = 0, output = 0, present = 0;
      for (std::size_t m = 0; m < 3; ++m)
        if (i < from.width(m)) {
          input += rows[m] * from.lane(m, 1)(i, k);
          output += rows[m] * from.output(m)(k, i);
          present += rows[m];
        }
      CHECK(to.lane(0, 1)(i, k) == doctest::Approx(input / present).epsilon(1e-13));
      CHECK(to.output(0)(k, i) == doctest::Approx(output / all).epsilon(1e-13));
    }
}

TEST_CASE("groups that cannot be merged are refused") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto error = [&](const compress::expert_groups& groups) {
    return support::error_of([&] { (void)compress::merge_experts(layer, run.sums, groups); });
  };
  CHECK(error({{0, 1}}) == "hmoe: experts 0 and 1 shall be merged, but they are in different banks");
  CHECK(error({{0, 2}, {3, 0}}) == "hmoe: expert 0 shall be merged twice");
  CHECK(error({{0, 5}}) == "hmoe: expert 5 shall be merged, the layer has 5");
}
