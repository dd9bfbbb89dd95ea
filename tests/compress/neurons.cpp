// SPDX-License-Identifier: MIT
#include <hmoe/compress/neurons.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

namespace compress = hmoe::compress;
namespace experts = hmoe::experts;
using support::d;

static_assert(compress::neuron_bank<support::glu> && compress::neuron_bank<support::mlp>);
static_assert(compress::neuron_bank<experts::gpt_oss_glu_bank<float>>);
static_assert(!compress::neuron_bank<experts::identity_bank<float>> &&
              !compress::neuron_bank<experts::low_rank_bank<float>>);

TEST_CASE("the chosen neurons stand in the order given, with their biases, whatever ids the experts have") {
  const auto layer = support::make_calibrated_layer();
  const auto& all = layer.experts();
  const compress::neuron_choice chosen{{4, 0}, {3}, {}, {5, 5, 1}, {0, 1, 2, 3, 4, 5}};
  const auto some = compress::take_neurons(all, chosen);
  CHECK(some.bank_index(3) == 0);
  for (std::size_t e = 0; e < 5; ++e) {
    CAPTURE(e);
    REQUIRE(some.width(e) == chosen[e].size());
    const std::size_t i = all.local_id(e);
    const auto same = [&]<std::size_t Lanes>(const experts::ffn_weights<double, Lanes>& from,
                                             const experts::ffn_weights<double, Lanes>& to) {
      for (std::size_t j = 0; j < chosen[e].size(); ++j) {
        for (std::size_t k = 0; k < d; ++k) {
          CHECK(to.output(i)(k, j) == from.output(i)(k, chosen[e][j]));
          for (std::size_t l = 0; l < Lanes; ++l)
            CHECK(to.lane(i, l)(j, k) == from.lane(i, l)(chosen[e][j], k));
        }
        if (from.has_biases())
          for (std::size_t l = 0; l < Lanes; ++l)
            CHECK(to.lane_bias(i, l)(0, j) == from.lane_bias(i, l)(0, chosen[e][j]));
      }
      for (std::size_t k = 0; from.has_biases() && k < d; ++k)
        CHECK(to.output_bias(i)(0, k) == from.output_bias(i)(0, k));
      CHECK(to.has_biases() == from.has_biases());
    };
    if (all.bank_index(e) == 0)
      same(all.bank<0>().weights(), some.bank<0>().weights());
    else
      same(all.bank<1>().weights(), some.bank<1>().weights());
  }
  CHECK(support::error_of([&] { (void)compress::take_neurons(all, {{}, {}, {}, {}}); }) ==
        "hmoe: neurons of 4 experts were chosen, the set has 5");
  CHECK(support::error_of([&] { (void)compress::take_neurons(all, {{}, {4}, {}, {}, {}}); }) ==
        "hmoe: neuron 4 of expert 1 was chosen, which has 4");
}
