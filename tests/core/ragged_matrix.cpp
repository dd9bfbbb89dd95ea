// SPDX-License-Identifier: MIT
#include <hmoe/core/ragged_matrix.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

using hmoe::ragged_matrix;

TEST_CASE("matrices of unequal shape lie one behind the other without padding") {
  support::random_source random(3);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::pair<std::size_t, std::size_t>> shapes(random.size(1, 9));
    std::size_t total = 0;
    for (auto& [rows, cols] : shapes) {
      rows = random.size(1, 7);
      cols = random.size(1, 5);
      total += rows * cols;
    }
    ragged_matrix<float> ragged(shapes);
    REQUIRE(ragged.size() == shapes.size());
    REQUIRE(ragged.values().size() == total);
    CHECK(std::ranges::all_of(ragged.values(), [](float value) { return value == 0; }));

    // Number the elements through the views; read through the flat storage they must count up.
    float next = 0;
    for (std::size_t i = 0; i < ragged.size(); ++i) {
      CHECK(ragged[i].rows() == shapes[i].first);
      CHECK(ragged[i].cols() == shapes[i].second);
      CHECK(ragged[i].data() == ragged.values().data() + ragged.offset(i));
      for (std::size_t r = 0; r < ragged[i].rows(); ++r)
        for (float& value : ragged[i].row(r))
          value = next++;
    }
    const ragged_matrix<float>& constant = ragged;
    for (std::size_t i = 0; i < total; ++i)
      CHECK(constant.values()[i] == static_cast<float>(i));
  }
}

TEST_CASE("empty, copied, moved") {
  CHECK(ragged_matrix<double>{}.size() == 0);
  CHECK(ragged_matrix<double>{}.values().empty());
  CHECK(ragged_matrix<double>({{0, 4}, {1, 1}, {3, 0}}).values().size() == 1);

  ragged_matrix<double> a({{1, 2}, {2, 1}});
  a[1](1, 0) = 4;
  ragged_matrix<double> b = a;
  b[1](1, 0) = 5;
  CHECK(a[1](1, 0) == 4);
  a = std::move(b);
  CHECK(a[1](1, 0) == 5);
  CHECK(a.offset(1) == 2);
}
