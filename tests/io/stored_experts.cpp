// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/experts/weight_source.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <doctest/doctest.h>

#include <span>
#include <utility>
#include <vector>

using hmoe::io::stored_expert;
using hmoe::io::stored_experts;
using hmoe::io::stored_matrix;

static_assert(hmoe::experts::block_weight_source<stored_experts<2>, hmoe::mxfp4_block>);

namespace {
const std::vector<float> counting_up{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
hmoe::io::stored_tensor part(std::size_t first, std::vector<std::size_t> shape) {
  return {"a file", "w", hmoe::io::tensor_type::f32, std::move(shape),
          std::as_bytes(std::span(counting_up).subspan(first))};
}
} // namespace

TEST_CASE("experts of a file: one with biases, one that was pruned away and has its output bias only") {
  stored_expert<1> kept{{stored_matrix(part(0, {3, 2})), stored_matrix(part(6, {2, 3}))},
                        {stored_matrix::column(part(9, {3})), std::nullopt}};
  stored_expert<1> gone{{}, {std::nullopt, stored_matrix::column(part(10, {2}))}};
  const stored_experts<1> experts(2, {kept, gone});
  CHECK(experts.width(0) == 3);
  CHECK(experts.width(1) == 0);
  REQUIRE(experts.has_biases());
  hmoe::matrix<float> row(1, 3), bias(2, 1), none(2, 0);
  experts.read(0, 1, 1, row);
  CHECK(row(0, 2) == 11);
  experts.read_bias(0, 0, 1, bias);
  CHECK(bias(1, 0) == 11);
  experts.read_bias(0, 1, 0, bias); // not in the file
  CHECK(bias(1, 0) == 0);
  experts.read_bias(1, 1, 0, bias);
  CHECK(bias(1, 0) == 11);
  experts.read(1, 1, 0, none);
  CHECK(!experts.has_blocks<hmoe::q8_block>(0, 0));

  CHECK_THROWS_AS((stored_experts<1>(2, {})), hmoe::error);
  CHECK_THROWS_WITH((stored_experts<1>(2, {{{stored_matrix(part(0, {3, 2})), stored_matrix(part(0, {3, 2}))}}})),
                    "hmoe: expert 0 of a file: matrix 1 is 3 x 2, needed is 2 x 3");
  CHECK_THROWS_WITH((stored_experts<1>(2, {{{stored_matrix(part(0, {3, 2})), std::nullopt}}})),
                    "hmoe: expert 0 of a file lacks matrix 1 of 2");
  kept.biases[1] = stored_matrix::column(part(0, {3}));
  CHECK_THROWS_WITH((stored_experts<1>(2, {kept})),
                    "hmoe: expert 0 of a file: the bias of matrix 1 has 3 values in 1 columns, needed are 2 in one");
}
