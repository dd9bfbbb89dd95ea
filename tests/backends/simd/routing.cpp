// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/routing/router.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

using namespace hmoe;
using backends::simd;

namespace {

template <class T> bool same_bits(vector_view<const T> a, vector_view<const T> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T> std::vector<T> row_of(support::random_source& random, std::size_t size, double scale) {
  std::vector<T> row(size);
  for (T& value : row)
    value = static_cast<T>(random.real(-scale, scale));
  return row;
}
template <class Function, class T> std::vector<T> scores(const Function& function, const std::vector<T>& z) {
  std::vector<T> p(z.size());
  routing::score_row(simd<>{}, function, vector_view<const T>(z), vector_view<T>(p));
  return p;
}

/// That the backend chooses what the selection itself chooses, in the same order.
template <class Selection, class T> void check_choice(const Selection& select, const std::vector<T>& p) {
  std::vector<index_t> ours(p.size(), 77), plain(p.size(), 77);
  std::vector<T> scratch(routing::selection_scratch(select, p.size()));
  const vector_view<const T> row(p);
  const std::size_t count =
      routing::select_row(simd<>{}, select, row, vector_view<index_t>(ours), vector_view<T>(scratch));
  REQUIRE(count == routing::select_row(select, row, vector_view<index_t>(plain), vector_view<T>(scratch)));
  ours.resize(count);
  plain.resize(count);
  CHECK(ours == plain);
}

constexpr std::size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 128, 512, 1024, 1025, 1100};

} // namespace

TEST_CASE_TEMPLATE("probabilities in vectors are those of the plain functions", T, float, double) {
  support::random_source random(51);
  const double epsilon = std::numeric_limits<T>::epsilon();
  for (const std::size_t size : sizes)
    for (const double scale : {0.1, 5.0, 60.0}) {
      const std::vector<T> z = row_of<T>(random, size, scale);
      const std::vector<double> exact_z(z.begin(), z.end());
      std::vector<double> exact(size);
      const auto check = [&](const auto& function) {
        function.forward(vector_view<const double>(exact_z), vector_view<double>(exact));
        const std::vector<T> p = scores(function, z);
        // z − max z is rounded before its exponential is taken.
        for (std::size_t i = 0; i < size; ++i)
          CHECK(std::abs(static_cast<double>(p[i]) - exact[i]) <=
                epsilon * ((16 + 2 * scale) * exact[i] + std::numeric_limits<T>::min()));
      };
      check(routing::softmax{});
      check(routing::sigmoid{});
    }
}

TEST_CASE_TEMPLATE("probabilities of logits that are not finite", T, float, double) {
  constexpr T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (const std::size_t size : {5U, 16U, 40U})
    for (std::size_t at = 0; at < size; at += 4) {
      std::vector<T> z(size, T(1));
      z[at] = nan;
      for (const T p : scores(routing::softmax{}, z))
        CHECK(std::isnan(p));
      z[at] = infinity;
      for (const T p : scores(routing::softmax{}, z)) // ∞ − ∞ where it stands; the sum carries it everywhere
        CHECK(std::isnan(p));
      z[at] = -infinity;
      const std::vector<T> p = scores(routing::softmax{}, z);
      CHECK(p[at] == 0);
      CHECK(p[(at + 1) % size] == doctest::Approx(1.0 / static_cast<double>(size - 1)));
    }
}

TEST_CASE_TEMPLATE("choices are those of the plain selections, with ties, infinities and NaN", T, float, double) {
  constexpr T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  support::random_source random(52);
  for (const std::size_t size : sizes)
    for (int round = 0; round < 12; ++round) {
      std::vector<T> p(size);
      for (T& value : p) {
        const double v = random.real(0, 1);
        value = static_cast<T>(round % 3 == 0 ? std::floor(v * 4) / 4 : round % 3 == 1 ? v : v - 0.5);
      }
      if (round >= 6) // a few that are special
        for (std::size_t i = 0; i < size; i += random.size(1, size))
          p[random.size(0, size - 1)] = round % 3 == 0 ? nan : round % 3 == 1 ? -infinity : T(-0.0);
      if (round == 11)
        std::fill(p.begin(), p.end(), -infinity);
      for (const std::size_t k : {std::size_t{1}, std::size_t{2}, std::size_t{8}, std::size_t{16}, size})
        if (k <= size && k <= 200)
          check_choice(routing::top_k<>{k}, p);
      if (size >= 2)
        check_choice(routing::top_k<2>{}, p);
      T sum = 0;
      for (const T value : p)
        sum += value;
      for (const double share : {0.05, 0.6, 1.0})
        if (size <= 200 && std::isfinite(sum)) {
          std::vector<T> normalised = p;
          for (T& value : normalised)
            value = std::abs(value) / (static_cast<T>(size));
          check_choice(routing::top_p{share}, normalised);
        }
    }
}

TEST_CASE_TEMPLATE("biased and group-limited choices are those of the plain selections", T, float, double) {
  using namespace routing;
  constexpr T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  support::random_source random(54);
  for (const std::size_t size : {6U, 24U, 60U, 128U, 256U, 1026U, 1200U})
    for (int round = 0; round < 15; ++round) {
      std::vector<T> p(size), bias(size);
      for (std::size_t i = 0; i < size; ++i) { // in steps, which makes ties; of any value; some of them negative
        const double v = random.real(0, 1), b = random.real(-0.3, 0.3);
        p[i] = static_cast<T>(round % 3 == 0 ? std::floor(v * 4) / 4 : v);
        bias[i] = static_cast<T>(round % 3 == 0 ? std::floor(b * 4) / 4 : round % 3 == 1 ? b : b - 0.8);
      }
      if (round >= 9)
        p[random.size(0, size - 1)] = round % 4 == 0 ? nan : round % 4 == 1 ? -infinity : infinity;
      if (round == 14)
        std::fill(p.begin(), p.end(), T(-0.0));
      const auto check_alone_and_biased = [&](const auto& select) {
        check_choice(select, p);
        biased<T, std::remove_cvref_t<decltype(select)>> moved(size, select);
        std::copy(bias.begin(), bias.end(), moved.bias().begin());
        check_choice(moved, p);
      };
      check_alone_and_biased(top_k<>{std::min<std::size_t>(8, size)});
      check_alone_and_biased(threshold{0.3});
      for (const std::size_t groups : {1U, 2U, 3U, 6U})
        for (const std::size_t kept : {std::size_t{1}, (groups + 1) / 2, std::size_t{groups}}) {
          if (size % groups != 0)
            continue;
          const std::size_t k = std::min<std::size_t>(8, kept * (size / groups));
          check_alone_and_biased(group_limited<group_score::best, group_mask::excluded>{groups, kept, k});
          check_alone_and_biased(group_limited<group_score::best, group_mask::zero>{groups, kept, k});
          if (size / groups >= 2) {
            check_alone_and_biased(group_limited<group_score::best_two, group_mask::excluded>{groups, kept, k});
            check_alone_and_biased(group_limited<group_score::best_two, group_mask::zero>{groups, kept, k});
          }
        }
    }
}

TEST_CASE_TEMPLATE("a token is routed to the same bit in any batch and on any number of threads", T, float, double) {
  const std::size_t d = 24, experts = 37, tokens = 200;
  support::random_source random(53);
  const matrix<T> x = support::random_matrix<T>(random, tokens, d);
  const auto check = [&](auto router) {
    router.initialize(seed{9}, 0, {.router_stddev = 1.0});
    const auto route = [&](matrix_view<const T> rows, std::size_t threads) {
      const context ctx{simd<>{}, executors::openmp{threads}};
      const workspace::scope scope(ctx.workspace());
      router_trace<T> trace;
      assignment<T> assigned;
      trace.resize(rows.rows(), experts, 0, false);
      router.forward(ctx, rows, trace, assigned);
      return std::pair{std::move(trace), std::move(assigned)};
    };
    const auto [all, all_assigned] = route(x.view(), 1);
    for (const std::size_t threads : {1U, 3U})
      for (const std::size_t count : {1U, 63U, 200U}) {
        const auto [trace, assigned] = route(x.view().row_block(tokens - count, count), threads);
        for (std::size_t t = 0; t < count; ++t) {
          const std::size_t other = tokens - count + t;
          REQUIRE(
              same_bits<T>(std::as_const(trace).probabilities().row(t), std::as_const(all).probabilities().row(other)));
          const std::size_t first = assigned.offsets()[t], n = assigned.offsets()[t + 1] - first;
          const std::size_t first_of_all = all_assigned.offsets()[other];
          REQUIRE(n == all_assigned.offsets()[other + 1] - first_of_all);
          for (std::size_t i = 0; i < n; ++i) {
            REQUIRE(assigned.experts()[first + i] == all_assigned.experts()[first_of_all + i]);
            REQUIRE(assigned.weights()[first + i] == all_assigned.weights()[first_of_all + i]);
          }
        }
      }
  };
  check(routing::top_k_router<T>{d, experts, 8});
  check(routing::top_p_router<T>{d, experts, 0.6});
  check(routing::router<routing::linear<T, routing::sigmoid>, routing::top_k<>>{d, experts, routing::top_k<>{4}});
  using one_group = routing::group_limited<>;
  check(routing::router<routing::linear<T, routing::sigmoid>, one_group>{d, experts, one_group{1, 1, 5}});
}
