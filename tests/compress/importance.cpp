// SPDX-License-Identifier: MIT
#include <hmoe/compress/importance.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace compress = hmoe::compress;
using support::d;

namespace {
struct expert_row {
  std::vector<double> hidden, out, g; ///< g = ∂L/∂out
  double weight;
};

/// The rows of expert e, computed by loops over the layer's weights; only the choices and weights come from the tapes.
std::vector<expert_row> rows_of_expert(const support::calibrated_layer& layer,
                                       const support::calibration_run<support::calibrated_layer>& run, std::size_t e) {
  std::vector<expert_row> rows;
  const std::size_t i = layer.experts().local_id(e);
  for (std::size_t batch = 0; batch < run.x.size(); ++batch)
    for (std::size_t t = 0; t < run.x[batch].rows(); ++t) {
      const auto& assigned = run.tapes[batch].assignment();
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        if (assigned.experts()[a] != e)
          continue;
        expert_row row{{}, std::vector<double>(d), std::vector<double>(d), assigned.weights()[a]};
        const auto dot = [&](auto matrix, std::size_t r) {
          double sum = 0;
          for (std::size_t k = 0; k < d; ++k)
            sum += matrix(r, k) * run.x[batch](t, k);
          return sum;
        };
        if (layer.experts().bank_index(e) == 0) {
          const auto& weights = layer.experts().bank<0>().weights();
          for (std::size_t j = 0; j < weights.width(i); ++j) {
            const double gate = dot(weights.lane(i, 0), j) + weights.lane_bias(i, 0)(0, j);
            const double up = dot(weights.lane(i, 1), j) + weights.lane_bias(i, 1)(0, j);
            row.hidden.push_back(gate / (1 + std::exp(-gate)) * up);
          }
        } else {
          const auto& weights = layer.experts().bank<1>().weights();
          for (std::size_t j = 0; j < weights.width(i); ++j) {
            const double z = dot(weights.lane(i, 0), j);
            row.hidden.push_back(z / 2 * (1 + std::erf(z / std::sqrt(2.0))));
          }
        }
        const auto& bank = layer.experts();
        for (std::size_t k = 0; k < d; ++k) {
          row.out[k] = bank.bank_index(e) == 0 ? bank.bank<0>().weights().output_bias(i)(0, k) : 0;
          for (std::size_t j = 0; j < row.hidden.size(); ++j)
            row.out[k] +=
                row.hidden[j] * (bank.bank_index(e) == 0 ? bank.bank<0>().down(i)(k, j) : bank.bank<1>().down(i)(k, j));
          row.g[k] = row.weight * run.dy[batch](t, k);
        }
        rows.push_back(std::move(row));
      }
    }
  return rows;
}
double down_of(const support::calibrated_layer& layer, std::size_t e, std::size_t k, std::size_t j) {
  const std::size_t i = layer.experts().local_id(e);
  return layer.experts().bank_index(e) == 0 ? layer.experts().bank<0>().down(i)(k, j)
                                            : layer.experts().bank<1>().down(i)(k, j);
}
double norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values)
    sum += v * v;
  return std::sqrt(sum);
}
} // namespace

TEST_CASE("importance is that of loops over tokens, with HEAPr's Fisher matrix written out") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto reap = compress::reap(run.sums);
  using enum compress::mean_over;
  const auto magnitude = compress::magnitude_times_activation(layer, run.sums, routed_tokens);
  const auto contribution = compress::squared_contribution(layer, run.sums);
  const auto heapr = compress::heapr(layer, run.sums, compress::fisher::averaged, routed_tokens);
  const auto heapr_all = compress::heapr(layer, run.sums);
  const auto per_token = compress::heapr(layer, run.sums, compress::fisher::per_token);
  REQUIRE(run.sums.tokens() == 19);
  std::size_t all_rows = 0;
  for (std::size_t e = 0; e < layer.size(); ++e) {
    CAPTURE(e);
    const auto rows = rows_of_expert(layer, run, e);
    const auto n = static_cast<double>(rows.size());
    all_rows += rows.size();
    REQUIRE(rows.size() > 1);
    CHECK(run.sums.load(e) == doctest::Approx(n / 19));
    double weighted_norm = 0;
    for (const expert_row& row : rows)
      weighted_norm += row.weight * norm(row.out);
    CHECK(reap[e] == doctest::Approx(weighted_norm / n).epsilon(1e-12));
    std::vector<double> fisher(d * d);
    for (const expert_row& row : rows)
      for (std::size_t k = 0; k < d; ++k)
        for (std::size_t l = 0; l < d; ++l)
          fisher[k * d + l] += row.g[k] * row.g[l] / n;
    REQUIRE(magnitude[e].size() == layer.widths()[e]);
    for (std::size_t j = 0; j < magnitude[e].size(); ++j) {
      double norms = 0, squares = 0, averaged = 0, product = 0;
      for (const expert_row& row : rows) {
        std::vector<double> effect(d);
        double along = 0;
        for (std::size_t k = 0; k < d; ++k) {
          effect[k] = down_of(layer, e, k, j) * row.hidden[j];
          along += row.g[k] * effect[k];
        }
        norms += norm(effect) / n;
        squares += row.weight * row.weight * norm(effect) * norm(effect) / 19;
        product += along * along / 2 / 19;
        for (std::size_t k = 0; k < d; ++k)
          for (std::size_t l = 0; l < d; ++l)
            averaged += effect[k] * fisher[k * d + l] * effect[l] / 2 / n;
      }
      CHECK(magnitude[e][j] == doctest::Approx(norms).epsilon(1e-12));
      CHECK(contribution[e][j] == doctest::Approx(squares).epsilon(1e-12));
      CHECK(heapr[e][j] == doctest::Approx(averaged).epsilon(1e-12));
      CHECK(heapr_all[e][j] == doctest::Approx(averaged * n / 19).epsilon(1e-12));
      CHECK(per_token[e][j] == doctest::Approx(product).epsilon(1e-12));
    }
  }
  CHECK(all_rows == 38); // top 2
}

TEST_CASE("experts without a row have importance 0, and HEAPr without gradients is refused") {
  auto layer = support::make_calibrated_layer();
  compress::calibration sums{layer};
  CHECK(compress::reap(sums) == std::vector<double>(5));
  CHECK(compress::sum_over_neurons(compress::heapr(layer, sums)) == std::vector<double>(5));
  support::random_source random(5);
  const auto x = support::random_matrix<double>(random, 1, d);
  hmoe::matrix<double> y(1, d);
  auto tape = layer.make_tape(1);
  layer.forward(support::cpu, x, y, tape);
  sums.add(layer, tape);
  std::size_t unused = 0;
  const auto values = compress::magnitude_times_activation(layer, sums);
  for (std::size_t e = 0; e < layer.size(); ++e)
    unused += compress::sum_over_neurons(values)[e] == 0 && compress::reap(sums)[e] == 0;
  CHECK(unused == 3);
  CHECK(support::error_of([&] { (void)compress::heapr(layer, sums); }) ==
        "hmoe: heapr needs gradients, and this calibration has none: call calibration.add_gradient(ctx, layer, tape, "
        "dy)");
  const auto other = hmoe::moe_layer{hmoe::expert_set{support::glu(d, {2})}, support::calibrated_router(d, 1, 1)};
  CHECK(support::error_of([&] { (void)compress::squared_contribution(other, sums); }) ==
        "hmoe: the calibration is of a layer with 5 experts and d_model 5, this one has 1 and 5");
}
