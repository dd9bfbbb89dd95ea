// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace support {

/// backends::simd that computes whole banks at once however small they are.
struct whole_banks : hmoe::backends::simd<> {
  template <class Bank> static auto takes_bank(const Bank&) noexcept {
    if constexpr (hmoe::backends::simd_detail::feed_forward<Bank>)
      return true;
    else
      return std::false_type{};
  }
};
/// backends::simd without its passes over whole banks: expert after expert, by the four products.
struct products_only : hmoe::backends::simd<> {
  static std::false_type takes_bank(const auto&) noexcept { return {}; }
};

template <class T>
using glu_and_mlp = hmoe::expert_set<hmoe::experts::glu_bank<T, hmoe::experts::silu>,
                                     hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>>;

/// Random weights and biases.
template <class T>
glu_and_mlp<T> make_experts(std::size_t d, std::vector<std::size_t> glu, std::vector<std::size_t> mlp,
                            hmoe::experts::biases bias) {
  glu_and_mlp<T> experts{hmoe::experts::glu_bank<T, hmoe::experts::silu>(d, std::move(glu), bias),
                         hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>(d, std::move(mlp), bias)};
  random_source random(61);
  experts.visit_parameters([&](const hmoe::parameter_info&, auto view) { fill(random, view); });
  return experts;
}

/// Everything that a forward and a backward pass over `rows[e]` rows of each expert compute; gradients start from
/// values, which they are added to.
template <class T> struct expert_passes {
  std::vector<hmoe::matrix<T>> y, unrecorded, saved, dx;
  std::vector<std::vector<T>> gradients;

  template <class Context, class Experts>
  expert_passes(const Context& ctx, const Experts& experts, const std::vector<std::size_t>& rows) {
    const std::size_t d = experts.d_model();
    random_source random(62);
    std::vector<hmoe::matrix<T>> x, dy;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      x.push_back(random_matrix<T>(random, rows[e], d));
      dy.push_back(random_matrix<T>(random, rows[e], d));
      y.emplace_back(rows[e], d);
      unrecorded.emplace_back(rows[e], d);
      dx.emplace_back(rows[e], d);
      saved.emplace_back(rows[e], experts.saved_per_row(e));
    }
    Experts sums = experts;
    sums.visit_parameters([&](const hmoe::parameter_info&, auto view) { fill(random, view); });
    std::vector<hmoe::expert_rows<T>> training, inference;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      training.push_back({.expert = e,
                          .count = rows[e],
                          .x = x[e].view(),
                          .y = y[e].view(),
                          .saved = saved[e].view(),
                          .dy = dy[e].view(),
                          .dx = dx[e].view()});
      inference.push_back({.expert = e, .count = rows[e], .x = x[e].view(), .y = unrecorded[e].view()});
    }
    using list = hmoe::vector_view<const hmoe::expert_rows<T>>;
    experts.forward_rows(ctx, list(training));
    experts.forward_rows(ctx, list(inference));
    experts.backward_rows(ctx, list(training), sums);
    sums.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) {
      gradients.emplace_back(view.data(), view.data() + view.size());
    });
  }
};

template <class Values> bool all_same_bits(const std::vector<Values>& a, const std::vector<Values>& b) {
  if (a.size() != b.size())
    return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i]))
      return false;
  return true;
}

/// Loads of seven experts: even, empty ones among them, all rows on one, few rows, and in proportion to 1, 1/2, 1/3 …
inline const std::vector<std::vector<std::size_t>>& expert_loads() {
  static const std::vector<std::vector<std::size_t>> loads{
      {40, 40, 40, 40, 40, 40, 40}, {0, 5, 0, 0, 13, 1, 0}, {0, 0, 0, 700, 0, 0, 0},
      {1, 2, 3, 4, 5, 6, 7},        {0, 0, 0, 0, 0, 0, 0},  {300, 150, 100, 75, 60, 50, 43}};
  return loads;
}

} // namespace support
