// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "backends/simd/packed_experts.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

/// Banks of every kind that is packed, layers of them, and a batch.
namespace support::packed_layers {

namespace formats = hmoe::backends::formats;
using hmoe::backends::simd;
using namespace hmoe;

// Widths and a d_model that leave every kind of rest behind panels of 8, 16 and 32 columns.
inline constexpr std::size_t d = 37;
inline const std::vector<std::size_t> ragged{1, 16, 31, 33, 64, 100};

template <class Bank> Bank random_bank(Bank bank) {
  support::random_source random(11);
  bank.visit_parameters([&](const parameter_info&, matrix_view<float> view) { support::fill(random, view, 0.5F); });
  return bank;
}
inline const auto glu = random_bank(experts::glu_bank<float, experts::silu>(d, ragged));
inline const auto glu_with_biases =
    random_bank(experts::glu_bank<float, experts::gelu>(d, ragged, experts::biases::all));
inline const auto mlp = random_bank(experts::mlp_bank<float, experts::gelu_tanh>(d, ragged, experts::biases::all));
inline const auto gpt_oss = random_bank(experts::gpt_oss_glu_bank<float>(d, ragged));

template <class Experts, class Dispatch = dispatch::sorted<>, class Router = routing::top_k_router<float>>
auto layer_of(Experts experts, Dispatch dispatch = {}, Router router = Router{d, 6, 2}) {
  router.initialize(seed{5}, 0, {.router_stddev = 1.0});
  return moe_layer{std::move(experts), std::move(router), dispatch};
}

template <class Format = formats::f32, class Bank> auto packed_layer(const Bank& bank) {
  return layer_of(expert_set{support::packed_experts(simd<>::pack<Format>(bank))});
}

template <class Layer> matrix<float> run(const Layer& layer, matrix_view<const float> x, std::size_t threads = 1) {
  const context ctx{simd<>{}, executors::openmp{threads}};
  matrix<float> y(x.rows(), x.cols());
  layer.forward(ctx, x, y);
  return y;
}
inline const hmoe::matrix<float> tokens = [] {
  support::random_source random(12);
  return support::random_matrix<float>(random, 300, d);
}();

inline bool same_bits(vector_view<const float> a, vector_view<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
inline void check_same_bits(const matrix<float>& a, const matrix<float>& b) {
  REQUIRE(a.rows() == b.rows());
  for (std::size_t t = 0; t < a.rows(); ++t)
    REQUIRE(same_bits(a.row(t), b.row(t)));
}

inline double relative_error(const matrix<float>& ours, const matrix<float>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    error += std::pow(double{ours.data()[i]} - double{expected.data()[i]}, 2);
    size += std::pow(double{expected.data()[i]}, 2);
  }
  return std::sqrt(error / size);
}

} // namespace support::packed_layers
