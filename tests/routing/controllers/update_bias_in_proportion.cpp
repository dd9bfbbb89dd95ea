// SPDX-License-Identifier: MIT
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/top_k.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;

TEST_CASE("the proportional rule moves by rate (share - load / sum), and leaves zero-cost experts alone") {
  // Two FFN experts and two zero-cost ones, 3 experts a token, of which 2 should be FFN experts: share 2 / (3 · 2).
  std::vector<double> bias{0, 1, 2, 3};
  const std::vector<double> load{10, 2, 12, 6};
  routing::update_bias_in_proportion<double>(bias, load, 0.1, 2.0 / 6, 2);
  CHECK(bias[0] == doctest::Approx(0.1 * (1.0 / 3 - 10.0 / 30)));
  CHECK(bias[1] == doctest::Approx(1 + 0.1 * (1.0 / 3 - 2.0 / 30)));
  CHECK(bias[2] == 2);
  CHECK(bias[3] == 3);
  const auto before = bias;
  routing::update_bias_in_proportion<double>(bias, std::vector<double>(4), 0.1, 0.25);
  CHECK(bias == before);
}

TEST_CASE("either rule balances a skewed router, in tokens or in FLOPs") {
  support::random_source random(1);
  const std::size_t experts = 6;
  for (const bool in_flops : {false, true})
    for (const bool by_sign : {false, true}) {
      routing::biased<double, routing::top_k<>> select(experts, {2});
      std::vector<double> flops(experts, 1.0);
      if (in_flops)
        flops = {1, 1, 2, 2, 3, 3};
      std::vector<double> load(experts);
      for (int step = 0; step < 400; ++step) {
        std::vector<index_t> counts(experts), chosen(experts);
        for (int t = 0; t < 200; ++t) {
          std::vector<double> p(experts), scratch(experts);
          for (std::size_t e = 0; e < experts; ++e)
            p[e] = random.real(0, 1) + 0.3 * static_cast<double>(e); // the last ones are far ahead
          select(vector_view<const double>(p), chosen, scratch);
          ++counts[chosen[0]];
          ++counts[chosen[1]];
        }
        std::fill(load.begin(), load.end(), 0.0);
        routing::load_in_flops(counts, flops, load);
        if (by_sign)
          routing::update_bias_by_sign<double>(select.bias(), load, 0.01);
        else
          routing::update_bias_in_proportion<double>(select.bias(), load, 1, 1.0 / experts);
      }
      double sum = 0;
      for (const double value : load)
        sum += value;
      for (std::size_t e = 0; e < experts; ++e) {
        INFO("expert ", e, " in_flops ", in_flops, " by_sign ", by_sign);
        CHECK(load[e] / sum * experts == doctest::Approx(1).epsilon(0.35));
      }
    }
}
