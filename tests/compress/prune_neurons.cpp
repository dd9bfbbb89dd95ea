// SPDX-License-Identifier: MIT
#include <hmoe/compress/prune_neurons.hpp>

#include "compress/calibrated_layer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;
using support::same_bits;

namespace {
/// A layer made by hand from the neurons that are not in `cut`.
support::calibrated_layer by_hand(const support::calibrated_layer& all, const std::vector<std::vector<bool>>& cut) {
  std::vector<std::size_t> glu_widths, mlp_widths;
  for (std::size_t e = 0; e < all.size(); ++e) {
    const auto kept = static_cast<std::size_t>(std::count(cut[e].begin(), cut[e].end(), false));
    (all.experts().bank_index(e) == 0 ? glu_widths : mlp_widths).push_back(kept);
  }
  support::calibrated_layer made{hmoe::expert_set{all.experts().ids(),
                                                  support::glu(d, glu_widths, hmoe::experts::biases::all),
                                                  support::mlp(d, mlp_widths)},
                                 all.router()};
  for (std::size_t e = 0; e < all.size(); ++e) {
    const std::size_t i = all.experts().local_id(e);
    std::size_t to = 0;
    for (std::size_t j = 0; j < cut[e].size(); ++j) {
      if (cut[e][j])
        continue;
      for (std::size_t k = 0; k < d; ++k)
        if (all.experts().bank_index(e) == 0) {
          const auto& from = all.experts().bank<0>();
          auto& bank = made.experts().bank<0>();
          bank.gate(i)(to, k) = from.gate(i)(j, k);
          bank.up(i)(to, k) = from.up(i)(j, k);
          bank.down(i)(k, to) = from.down(i)(k, j);
          bank.weights().output_bias(i)(0, k) = from.weights().output_bias(i)(0, k);
          for (std::size_t l = 0; l < 2; ++l)
            bank.weights().lane_bias(i, l)(0, to) = from.weights().lane_bias(i, l)(0, j);
        } else {
          made.experts().bank<1>().up(i)(to, k) = all.experts().bank<1>().up(i)(j, k);
          made.experts().bank<1>().down(i)(k, to) = all.experts().bank<1>().down(i)(k, j);
        }
      ++to;
    }
    if (to == 0 && all.experts().bank_index(e) == 0)
      for (std::size_t k = 0; k < d; ++k)
        made.experts().bank<0>().weights().output_bias(i)(0, k) =
            all.experts().bank<0>().weights().output_bias(i)(0, k);
  }
  return made;
}
} // namespace

TEST_CASE("a pruned layer has the bits of one made by hand, and the report its numbers") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto importance = compress::heapr(layer, run.sums);
  // An oracle of its own: neurons of all experts in one list; GLU neurons have 17 parameters, MLP neurons 10.
  struct neuron {
    double value;
    std::size_t expert, index, cost;
  };
  std::vector<neuron> list;
  for (std::size_t e = 0; e < 5; ++e)
    for (std::size_t j = 0; j < importance[e].size(); ++j)
      list.push_back({importance[e][j], e, j, layer.experts().bank_index(e) == 0 ? std::size_t{17} : std::size_t{10}});
  std::sort(list.begin(), list.end(), [](const neuron& a, const neuron& b) {
    return a.value / static_cast<double>(a.cost) > b.value / static_cast<double>(b.cost);
  });
  for (const double share : {1.0, 0.7, 0.4, 0.0}) {
    CAPTURE(share);
    std::vector<std::vector<bool>> cut;
    for (const auto& values : importance)
      cut.emplace_back(values.size(), true);
    std::size_t used = 0;
    double lost = 0, all = 0;
    bool full = false;
    for (const neuron& n : list) {
      full = full || static_cast<double>(used + n.cost) > share * (14 * 17 + 10 * 10);
      cut[n.expert][n.index] = full;
      used += full ? 0 : n.cost;
      lost += full ? n.value : 0;
      all += n.value;
    }
    const auto made = by_hand(layer, cut);
    auto pruned = compress::prune_neurons(layer, importance, run.sums, {.share = share});
    CHECK(pruned.report.widths == std::vector<std::size_t>(made.widths().begin(), made.widths().end()));
    CHECK(pruned.report.widths_before == std::vector<std::size_t>{5, 4, 3, 6, 6});
    CHECK(pruned.report.parameters == used + 3 * d); // the output biases of the GLUs stay
    CHECK(pruned.report.parameters_before == 14 * 17 + 10 * 10 + 3 * d);
    CHECK(pruned.importance == doctest::Approx(all));
    CHECK(pruned.importance_cut == doctest::Approx(lost));
    CHECK(pruned.importance_cut_without_multiples == pruned.importance_cut);
    const matrix<double>& x = run.x[2];
    support::step a(made, x, run.dy[2]), b(pruned.layer, x, run.dy[2]);
    CHECK(same_bits(a.y, b.y));
    CHECK(same_bits(a.dx, b.dx));
    CHECK(same_bits(a.all_gradients(), b.all_gradients()));
    const auto change = pruned.measure(cpu, layer, x);
    support::step whole(layer, x, run.dy[2]);
    double squared = 0;
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t k = 0; k < d; ++k)
        squared += std::pow(whole.y(t, k) - a.y(t, k), 2) / static_cast<double>(x.rows());
    CHECK(change.squared == doctest::Approx(squared));
    CHECK((*pruned.report.predicted == 0) == (share == 1.0));
  }
}

TEST_CASE("the predicted change is exact for one neuron, on the tokens of the calibration") {
  const auto layer = support::make_calibrated_layer();
  compress::calibration sums{layer};
  support::random_source random(12);
  const auto x = support::random_matrix<double>(random, 30, d);
  matrix<double> y(30, d);
  auto tape = layer.make_tape(30);
  layer.forward(cpu, x, y, tape);
  sums.add(layer, tape);
  auto importance = compress::squared_contribution(layer, sums);
  for (auto& values : importance)
    std::fill(values.begin(), values.end(), 1.0);
  importance[3][2] = 0.5;
  auto pruned = compress::prune_neurons(layer, importance, sums, {.share = 0.96});
  CHECK(pruned.report.widths == std::vector<std::size_t>{5, 4, 3, 5, 6});
  CHECK(pruned.measure(cpu, layer, x).squared == doctest::Approx(*pruned.report.predicted));
  CHECK(*pruned.report.predicted == doctest::Approx(compress::squared_contribution(layer, sums)[3][2]));
}
