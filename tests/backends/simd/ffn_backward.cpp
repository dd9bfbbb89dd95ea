// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>

#include "backends/simd/ffn_batches.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace {

using hmoe::experts::biases;
using support::expert_passes;

hmoe::context<support::whole_banks, hmoe::executors::openmp> on(std::size_t threads) {
  return hmoe::context{support::whole_banks{}, hmoe::executors::openmp{threads}};
}

/// Everything that may be wanted of a backward pass: dx, and the gradients of gate, up, down and biases.
constexpr unsigned everything = 0b11111;

/// A backward pass over an expert of width 0, one of two chunks and one of few rows, either with contiguous rows or
/// with rows that scatter, that computes what is wanted and leaves no memory for the rest.
template <class T> struct partial_backward {
  using bank = hmoe::experts::glu_bank<T, hmoe::experts::silu>;
  static constexpr std::size_t d = 5, tokens = 1100;
  bank experts{d, {0, 9, 3}, biases::all}, sums = experts;
  hmoe::matrix<T> x, dy, dx{tokens, d};
  std::vector<hmoe::matrix<T>> saved, each_dx;

  /// Gradients begin as `start`.
  template <class Run> partial_backward(unsigned wanted, bool scatters, T start, const Run& run) {
    support::random_source random(63);
    experts.visit_parameters([&](const hmoe::parameter_info&, auto view) { fill(random, view); });
    sums.visit_parameters([&](const hmoe::parameter_info&, auto view) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        std::fill(view.row(r).begin(), view.row(r).end(), start);
    });
    x = support::random_matrix<T>(random, tokens, d);
    dy = support::random_matrix<T>(random, tokens, d);
    const hmoe::matrix<T> weights = support::random_matrix<T>(random, 1, tokens);
    std::vector<hmoe::index_t> ids(tokens);
    for (std::size_t t = 0; t < tokens; ++t)
      ids[t] = static_cast<hmoe::index_t>(t);
    const auto list_of = [&](std::size_t first, std::size_t count) {
      return hmoe::vector_view<const hmoe::index_t>(ids.data() + first, count);
    };
    std::vector<hmoe::expert_rows<T>> rows;
    for (const auto [e, first, count] : {std::array<std::size_t, 3>{0, 3, 4}, std::array<std::size_t, 3>{1, 0, tokens},
                                         std::array<std::size_t, 3>{2, 9, 2}}) {
      saved.push_back(support::random_matrix<T>(random, count, experts.saved_per_row(e)));
      each_dx.emplace_back(count, d);
      hmoe::expert_rows<T>& r = rows.emplace_back();
      r.expert = e;
      r.count = count;
      r.saved = saved.back().view();
      r.x = scatters ? x.view() : x.view().row_block(first, count);
      r.dy = scatters ? dy.view() : dy.view().row_block(first, count);
      if ((wanted & 1U) != 0)
        r.dx = scatters ? dx.view() : each_dx.back().view();
      if (scatters) {
        r.tokens = r.entries = list_of(first, count);
        r.weights = hmoe::vector_view<const T>(weights.data(), tokens);
      }
    }
    std::vector<hmoe::experts::ffn_tensors<T, 2>> tensors(experts.size());
    const auto some = [&](unsigned place, hmoe::matrix_view<T> view) {
      return (wanted >> place & 1U) != 0 ? view : hmoe::matrix_view<T>(nullptr, view.rows(), view.cols());
    };
    for (std::size_t e = 0; e < experts.size(); ++e) {
      auto& all = sums.weights();
      tensors[e] = {.lanes = {some(1, all.lane(e, 0)), some(2, all.lane(e, 1))},
                    .output = some(3, all.output(e)),
                    .lane_biases = {some(4, all.lane_bias(e, 0)), some(4, all.lane_bias(e, 1))},
                    .output_bias = some(4, all.output_bias(e))};
    }
    bank partial{hmoe::experts::ffn_weights<T, 2>(std::move(tensors))};
    run(experts, hmoe::vector_view<const hmoe::expert_rows<T>>(rows.data(), rows.size()), partial);
  }
  /// Whether what is wanted is the same as in another pass.
  [[nodiscard]] bool same(const partial_backward& other, unsigned wanted) const {
    bool result =
        (wanted & 1U) == 0 || (support::same_bits(dx, other.dx) && support::all_same_bits(each_dx, other.each_dx));
    const auto &own = sums.weights(), &others = other.sums.weights();
    const auto compare = [&](unsigned place, hmoe::matrix_view<const T> a, hmoe::matrix_view<const T> b) {
      if ((wanted >> place & 1U) != 0)
        for (std::size_t r = 0; r < a.rows(); ++r)
          result = result && std::memcmp(a.row(r).data(), b.row(r).data(), a.cols() * sizeof(T)) == 0;
    };
    for (std::size_t e = 0; e < experts.size(); ++e) {
      for (std::size_t l = 0; l < 2; ++l) {
        compare(1 + static_cast<unsigned>(l), own.lane(e, l), others.lane(e, l));
        compare(4, own.lane_bias(e, l), others.lane_bias(e, l));
      }
      compare(3, own.output(e), others.output(e));
      compare(4, own.output_bias(e), others.output_bias(e));
    }
    return result;
  }
};

} // namespace

TEST_CASE_TEMPLATE("gradients of all experts at once: the bits that expert after expert gives, on any threads", T,
                   float, double) {
  const hmoe::context by_products{support::products_only{}};
  for (const std::size_t d : {3U, 48U, 290U})
    for (const biases bias : {biases::none, biases::all}) {
      const auto experts = support::make_experts<T>(d, {1, 3, 17, 200}, {33, 1, 64}, bias);
      for (const auto& load : support::expert_loads()) {
        CAPTURE(d);
        CAPTURE(load[3]);
        const expert_passes<T> expected(by_products, experts, load);
        for (const std::size_t threads : {1U, 2U, 3U}) {
          const expert_passes<T> ours(on(threads), experts, load);
          CHECK(support::all_same_bits(ours.dx, expected.dx));
          CHECK(support::all_same_bits(ours.gradients, expected.gradients));
        }
      }
    }
}

TEST_CASE_TEMPLATE("experts of width 0 among others: the same bits at once and one by one", T, float, double) {
  for (const hmoe::experts::biases bias : {hmoe::experts::biases::none, hmoe::experts::biases::all}) {
    const auto experts = support::make_experts<T>(17, {0, 3, 0, 40}, {0, 33, 0}, bias);
    for (const auto& load : support::expert_loads()) {
      const support::expert_passes<T> expected(hmoe::context{support::products_only{}}, experts, load),
          ours(on(3), experts, load);
      CHECK(support::all_same_bits(ours.y, expected.y));
      CHECK(support::all_same_bits(ours.unrecorded, expected.y));
      CHECK(support::all_same_bits(ours.dx, expected.dx));
      CHECK(support::all_same_bits(ours.gradients, expected.gradients));
    }
  }
}

TEST_CASE_TEMPLATE("gradients that nobody needs are left out, and the others keep their bits", T, float, double) {
  const auto at_once = [](hmoe::backends::sums_from from) {
    return [from](const auto& experts, auto rows, auto& sums) {
      support::whole_banks::backward_bank(on(2), experts, rows, sums, from);
    };
  };
  const auto one_by_one = [](const auto& experts, auto rows, auto& sums) {
    for (const hmoe::expert_rows<T>& r : rows) {
      hmoe::matrix<T> scratch(r.count, experts.scratch_per_row(r.expert));
      experts.backward(support::products_only{}, r.expert, r.x, r.saved, r.dy, r.dx, scratch.view(), sums);
    }
  };
  using pass = partial_backward<T>;
  using enum hmoe::backends::sums_from;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const bool scatters : {false, true}) {
    const pass added(everything, scatters, T(3), at_once(gradients)),
        whole(everything, scatters, T(0), at_once(gradients));
    CHECK_FALSE(added.same(whole, everything));
    for (unsigned wanted = 0; wanted <= everything; ++wanted) {
      CAPTURE(scatters);
      CAPTURE(wanted);
      CHECK(pass(wanted, scatters, T(3), at_once(gradients)).same(added, wanted));
      CHECK(pass(wanted, scatters, nan, at_once(zero)).same(whole, wanted)); // whatever was there
      if (!scatters)
        CHECK(pass(wanted, scatters, T(3), one_by_one).same(added, wanted));
    }
  }
}
