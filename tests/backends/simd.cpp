// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::backends::reference;
using hmoe::backends::simd;

namespace {

// Columns that reach past one panel and leave every kind of rest, depths that cross the packing buffer.
const std::vector<std::size_t> row_counts{0, 1, 5, 12, 13, 37}, column_counts{1, 15, 16, 31, 32, 33, 70},
    depths{0, 1, 7, 64, 256, 300};

/// A chain of k fused or plain multiply-adds in T errs by at most about k·ε·Σ|a||b|; inputs are in [−1, 1).
template <class T> double tolerance(std::size_t depth) {
  return static_cast<double>((depth + 1) * (depth + 1)) * std::numeric_limits<T>::epsilon();
}

template <class T> bool same_bits(hmoe::vector_view<const T> a, hmoe::vector_view<const T> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

} // namespace

TEST_CASE_TEMPLATE("SIMD products agree with the reference for every rest of rows, columns and depth", T, float,
                   double) {
  support::random_source random(5);
  for (const std::size_t m : row_counts)
    for (const std::size_t n : column_counts)
      for (const std::size_t k : depths) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        // Views inside of wider matrices: strides differ from the number of columns.
        const matrix<T> a = support::random_matrix<T>(random, m, k + 3),
                        at = support::random_matrix<T>(random, k, m + 1);
        const matrix<T> b = support::random_matrix<T>(random, k, n + 2),
                        bt = support::random_matrix<T>(random, n, k + 5);
        const matrix<T> start = support::random_matrix<T>(random, m, n + 4);
        const auto check = [&](auto product) {
          matrix<T> ours = start, expected = start;
          product(simd<>{}, ours.view().column_block(1, n));
          product(reference{}, expected.view().column_block(1, n));
          // The columns beside the output must come out untouched as well.
          CHECK(support::largest_difference(ours.view(), expected.view()) <= tolerance<T>(k));
        };
        check([&](auto math, auto c) {
          math.multiply_transposed(a.view().column_block(2, k), bt.view().column_block(3, k), c);
        });
        check([&](auto math, auto c) { math.multiply(a.view().column_block(2, k), b.view().column_block(1, n), c); });
        check([&](auto math, auto c) { math.accumulate(a.view().column_block(2, k), b.view().column_block(1, n), c); });
        check([&](auto math, auto c) {
          math.accumulate_transposed(at.view().column_block(1, m), b.view().column_block(1, n), c);
        });
      }
}

TEST_CASE_TEMPLATE("the bits of an element depend on its row and column only", T, float, double) {
  support::random_source random(6);
  const std::size_t rows = 29, depth = 270, columns = 45;
  const matrix<T> a = support::random_matrix<T>(random, rows, depth),
                  w = support::random_matrix<T>(random, columns, depth);
  matrix<T> together(rows, columns), alone(1, columns), one_column(rows, 1);
  simd<>::multiply_transposed(a.view(), w.view(), together.view());
  for (std::size_t r = 0; r < rows; ++r) {
    simd<>::multiply_transposed(a.view().row_block(r, 1), w.view(), alone.view());
    CHECK(same_bits<T>(alone.view().row(0), together.view().row(r)));
  }
  simd<>::multiply_transposed(a.view(), w.view().row_block(17, 1), one_column.view());
  for (std::size_t r = 0; r < rows; ++r)
    CHECK(one_column(r, 0) == together(r, 17));

  // Weights stored the other way round are the same product.
  matrix<T> turned(depth, columns), direct(rows, columns);
  for (std::size_t k = 0; k < depth; ++k)
    for (std::size_t c = 0; c < columns; ++c)
      turned(k, c) = w(c, k);
  simd<>::multiply(a.view(), turned.view(), direct.view());
  for (std::size_t r = 0; r < rows; ++r)
    CHECK(same_bits<T>(direct.view().row(r), together.view().row(r)));
}

TEST_CASE("a layer on SIMD gives a token the same bits in any batch, on any threads, by any dispatch") {
  using namespace hmoe;
  constexpr std::size_t d = 37;
  support::random_source random(7);
  const matrix<float> x = support::random_matrix<float>(random, 300, d);
  const auto run = [&](auto dispatch, std::size_t threads, matrix_view<const float> tokens) {
    moe_layer layer{
        expert_set{experts::glu_bank<float, experts::silu>{d, std::vector<std::size_t>{1, 16, 31, 33, 64, 100}}},
        routing::top_k_router<float>{d, 6, 2}, dispatch};
    layer.initialize(seed{8}, {.router_stddev = 1.0});
    const context ctx{simd<>{}, executors::openmp{threads}};
    matrix<float> y(tokens.rows(), d);
    layer.forward(ctx, tokens, y);
    return y;
  };
  const matrix<float> expected = run(dispatch::sorted{}, 1, x);
  for (const std::size_t threads : {1U, 2U, 3U})
    for (const std::size_t tokens : {1U, 3U, 64U, 300U}) {
      const auto batch = x.view().row_block(300 - tokens, tokens);
      const auto check = [&](const matrix<float>& y) {
        for (std::size_t t = 0; t < tokens; ++t)
          REQUIRE(same_bits<float>(y.row(t), expected.row(300 - tokens + t)));
      };
      check(run(dispatch::sorted{}, threads, batch));
      check(run(dispatch::looped{}, threads, batch));
      check(run(dispatch::dense{}, threads, batch));
    }
}

TEST_CASE("a layer that was never initialised is not packed; experts without weights, or of width 0, are") {
  using namespace hmoe;
  using glu = experts::glu_bank<float, experts::silu>;
  const auto layer_of = [](const glu& bank) {
    return moe_layer{expert_set{bank, experts::zero_bank<float>{8}},
                     routing::top_k_router<float>{8, bank.size() + 1, 1}};
  };
  const auto pack = [](const auto& layer) { static_cast<void>(simd<>::pack(layer)); };
  auto layer = layer_of({8, {3, 5}, experts::biases::all});
  CHECK(
      support::error_of([&] { pack(layer); }) ==
      "hmoe: simd::pack: all 192 weights of the layer's experts are 0, as those of a layer that was never initialised: "
      "call layer.initialize(seed), or load weights, and pack it then"); // 3 · 8 · (3 + 5)
  layer.experts().bank<0>().weights().output_bias(1)(0, 7) = 0.5F;
  CHECK(support::error_of([&] { pack(layer); }) == "no error");
  CHECK(support::error_of([&] { pack(layer_of({8, {0, 0}, experts::biases::all})); }) == "no error");
}
