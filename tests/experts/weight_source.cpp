// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/weight_source.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

using namespace hmoe;

using glu_weights = experts::weights_in_memory<2>;
static_assert(experts::weight_source<glu_weights> && experts::weight_source<experts::weights_in_memory<1>>);
static_assert(!experts::block_weight_source<glu_weights, mxfp4_block>);
static_assert(!experts::weight_source<experts::ffn_weights<float, 2>>);

TEST_CASE("the weights of a bank as a source: any rows of any matrix, and the biases of them") {
  experts::ffn_weights<float, 2> weights(3, {2, 0, 5}, experts::biases::all);
  support::random_source random(1);
  weights.visit_parameters({"gate", "up"}, {"gate_bias", "up_bias"},
                           [&](const parameter_info&, matrix_view<float> view) { support::fill(random, view, 1.0F); });
  const glu_weights source(weights);
  CHECK(source.size() == 3);
  CHECK(source.width(1) == 0);
  CHECK(source.has_biases());
  for (const std::size_t e : {0U, 1U, 2U})
    for (std::size_t m = 0; m < 3; ++m) {
      const matrix_view<const float> all = m < 2
                                               ? static_cast<const experts::ffn_weights<float, 2>&>(weights).lane(e, m)
                                               : static_cast<const experts::ffn_weights<float, 2>&>(weights).output(e);
      for (std::size_t first = 0; first <= all.rows(); ++first) {
        matrix<float> to(all.rows() - first, all.cols()), bias(to.rows(), 1);
        source.read(e, m, first, to);
        source.read_bias(e, m, first, bias);
        for (std::size_t r = 0; r < to.rows(); ++r) {
          for (std::size_t c = 0; c < to.cols(); ++c)
            CHECK(to(r, c) == all(first + r, c));
          CHECK(bias(r, 0) == (m < 2 ? weights.lane_bias(e, m) : weights.output_bias(e))(0, first + r));
        }
      }
    }
}
