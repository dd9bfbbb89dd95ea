// SPDX-License-Identifier: MIT
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/neuron_budget.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

namespace compress = hmoe::compress;
using support::d;
using list = std::vector<std::size_t>;

TEST_CASE("neurons are ranked over all experts, by cost, in multiples, and smaller budgets are parts of larger ones") {
  const auto layer = support::make_calibrated_layer(); // widths 5 4 3 6 6; a neuron costs 17 or (experts 1 and 4) 10
  const support::calibration_run run(layer);
  const auto& sums = run.sums;
  const compress::neuron_values importance{
      {17, 34, 51, 68, 85}, {1, 1, 1, 1}, {0, 0, 0}, {17, 17, 17, 17, 17, 85}, {100, 9, 8, 7, 6, 5}};
  const auto widths = [&](const compress::neuron_budget& budget) {
    return compress::widths_within(layer, importance, sums, budget);
  };
  // By importance per parameter: 10 (4), 5 (0), 5 (3), 4 (0), 3 (0), 2 (0), then 1 (0) before 1 (3) five times, 0.9 (4)
  // …
  const double total = 14 * 17 + 10 * 10;
  CHECK(widths({.share = 0}) == list{0, 0, 0, 0, 0});
  CHECK(widths({.share = 9.99 / total}) == list{0, 0, 0, 0, 0});
  CHECK(widths({.share = 10 / total}) == list{0, 0, 0, 0, 1});
  CHECK(widths({.share = 27 / total}) == list{1, 0, 0, 0, 1});
  CHECK(widths({.share = 44 / total}) == list{1, 0, 0, 1, 1});
  CHECK(widths({.share = 112 / total}) == list{5, 0, 0, 1, 1});
  CHECK(widths({.share = 146 / total}) == list{5, 0, 0, 3, 1});
  CHECK(widths({.share = 1}) == list{5, 4, 3, 6, 6});
  // In twos: 5.45 (4), 4.5 (0), 3 (3), 2.5 (0), 1 (0: one neuron alone), 1 (3) …
  CHECK(widths({.share = 20 / total, .multiple = 2}) == list{0, 0, 0, 0, 2});
  CHECK(widths({.share = 54 / total, .multiple = 2}) == list{2, 0, 0, 0, 2});
  CHECK(widths({.share = 139 / total, .multiple = 2}) == list{5, 0, 0, 2, 2});
  CHECK(widths({.share = 139 / total, .multiple = 4}) == list{4, 0, 0, 0, 4});
  // What experts keep at least comes first, and may exceed the budget.
  CHECK(widths({.share = 0, .least_width = 2}) == list{2, 2, 2, 2, 2});
  CHECK(widths({.share = 0, .multiple = 4, .least_width = 1}) == list{4, 4, 3, 4, 4});
  list last{0, 0, 0, 0, 0};
  for (double share = 0; share <= 1; share += 1.0 / 64) {
    const list next = widths({.share = share, .multiple = 3});
    for (std::size_t e = 0; e < 5; ++e)
      CHECK(next[e] >= last[e]);
    last = next;
  }
}

TEST_CASE("a budget of FLOPs weighs neurons by the rows of their experts") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  compress::neuron_values importance;
  for (std::size_t e = 0; e < 5; ++e)
    importance.emplace_back(layer.widths()[e], run.sums.load(e)); // by FLOPs, MLP neurons are worth 1.5 as much
  double total = 0, mlps = 0;
  for (std::size_t e = 0; e < 5; ++e) {
    const double flops = run.sums.load(e) * layer.experts().flops_per_row(e);
    total += flops;
    mlps += e == 1 || e == 4 ? flops : 0;
  }
  CHECK(compress::widths_within(layer, importance, run.sums,
                                {.share = mlps / total, .counted = compress::cost::flops}) == list{0, 4, 0, 0, 6});
  // An expert without a row costs nothing, and stays.
  const compress::calibration nothing{layer};
  CHECK(compress::widths_within(layer, importance, nothing, {.share = 0, .counted = compress::cost::flops}) ==
        list{5, 4, 3, 6, 6});
}

TEST_CASE("budgets and importance that make no sense are refused with their numbers") {
  const auto layer = support::make_calibrated_layer();
  const compress::calibration sums{layer};
  compress::neuron_values importance;
  for (std::size_t e = 0; e < 5; ++e)
    importance.emplace_back(layer.widths()[e], 1.0);
  const auto error = [&](const compress::neuron_values& values, const compress::neuron_budget& budget) {
    return support::error_of([&] { (void)compress::widths_within(layer, values, sums, budget); });
  };
  CHECK(error(importance, {.share = 1.5}) == "hmoe: a budget keeps a share of 1.5 of the neurons, possible are 0 to 1");
  CHECK(error(importance, {.share = std::numeric_limits<double>::quiet_NaN()}).find("share of nan") !=
        std::string::npos);
  CHECK(error(importance, {.multiple = 0}) == "hmoe: widths shall be multiples of 0, possible are 1 or more");
  auto wrong = importance;
  wrong[3][2] = std::numeric_limits<double>::infinity();
  CHECK(error(wrong, {}) == "hmoe: the importance of neuron 2 of expert 3 is inf");
  wrong = importance;
  wrong[1].pop_back();
  CHECK(error(wrong, {}) == "hmoe: importance is of 3 neurons of expert 1, which has 4");
  wrong.pop_back();
  CHECK(error(wrong, {}) == "hmoe: importance is of 4 experts, the layer has 5");
}
