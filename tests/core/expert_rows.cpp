// SPDX-License-Identifier: MIT
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using namespace hmoe;

namespace {
matrix<float> numbered(std::size_t rows, std::size_t cols) {
  matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<float>(i);
  return m;
}
} // namespace

TEST_CASE("contiguous rows: row i of every view, and so in a part") {
  const matrix<float> x = numbered(6, 2), dy = numbered(6, 2);
  matrix<float> y(6, 2), saved(6, 3), dx(6, 2);
  const expert_rows<float> rows{
      .expert = 4, .count = 6, .x = x.view(), .y = y.view(), .saved = saved.view(), .dy = dy.view(), .dx = dx.view()};
  CHECK(!rows.scatters());
  CHECK(rows.keeps());
  CHECK(rows.source(5).data() == x.row(5).data());
  CHECK(rows.output_weight(0) == 1);
  const auto part = rows.part(2, 3);
  CHECK(part.expert == 4);
  CHECK(part.count == 3);
  CHECK(part.source(0).data() == x.row(2).data());
  CHECK(part.y.data() == y.row(2).data());
  CHECK(part.saved.row(2).data() == saved.row(4).data());
  CHECK(part.dy.rows() == 3);
  CHECK(part.dx.data() == dx.row(2).data());
  CHECK(!expert_rows<float>{.count = 6, .x = x.view(), .y = y.view()}.part(0, 2).keeps());
}

TEST_CASE("rows of tokens: x and y stay whole, tokens and entries are cut") {
  const matrix<float> x = numbered(9, 2);
  matrix<float> y(9, 2);
  const std::vector<index_t> tokens{1, 4, 8}, entries{0, 5, 6};
  const std::vector<float> weights{0.5F, 0, 0, 0, 0, 2, 4};
  for (const bool on_input : {false, true}) {
    const expert_rows<float> rows{.count = 3,
                                  .x = x.view(),
                                  .y = y.view(),
                                  .tokens = vector_view<const index_t>(tokens),
                                  .entries = vector_view<const index_t>(entries),
                                  .weights = vector_view<const float>(weights),
                                  .weights_on_input = on_input};
    CHECK(rows.scatters());
    const auto part = rows.part(1, 2);
    CHECK(part.source(1).data() == x.row(8).data());
    CHECK(part.x.rows() == 9);
    CHECK(part.y.data() == y.data());
    CHECK(part.input_weight(0) == (on_input ? 2 : 1));
    CHECK(part.output_weight(1) == (on_input ? 1 : 4));
  }
}
