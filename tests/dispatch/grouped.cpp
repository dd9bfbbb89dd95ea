// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/grouped.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

namespace {
using experts_type = hmoe::expert_set<hmoe::experts::glu_bank<double, hmoe::experts::silu>>;
experts_type make_experts() {
  experts_type experts{hmoe::experts::glu_bank<double, hmoe::experts::silu>(4, {2, 7})};
  experts.initialize(hmoe::seed{1}, 0, {});
  return experts;
}
} // namespace

TEST_CASE("batches longer than a tile give the rows that one call gives, with or without saving") {
  const auto experts = make_experts();
  support::random_source random(131);
  const std::size_t rows = 2 * hmoe::dispatch::rows_per_tile + 5;
  const auto x = support::random_matrix<double>(random, rows, 4);
  hmoe::matrix<double> expected(rows, 4), expected_saved(rows, experts.saved_per_row(1));
  experts.forward(hmoe::backends::reference{}, 1, x.view(), expected.view(), expected_saved.view());

  for (const std::size_t threads : {1U, 3U}) {
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    for (const bool saving : {true, false}) {
      hmoe::matrix<double> y(rows, 4), small(3, 4), saved(rows, experts.saved_per_row(1));
      const std::vector<hmoe::dispatch::forward_batch<double>> batches{
          {0, x.view().row_block(0, 3), small.view(), {}},
          {0, x.view().row_block(0, 0), small.view().row_block(0, 0), {}},
          {1, x.view(), y.view(), saving ? saved.view() : hmoe::matrix_view<double>{}}};
      const hmoe::workspace::scope scope(ctx.workspace());
      hmoe::dispatch::forward_experts(ctx, experts,
                                      hmoe::vector_view<const hmoe::dispatch::forward_batch<double>>(batches));
      CHECK(std::memcmp(y.data(), expected.data(), y.size() * sizeof(double)) == 0);
      if (saving)
        CHECK(std::memcmp(saved.data(), expected_saved.data(), saved.size() * sizeof(double)) == 0);
    }
  }
}

namespace {
/// A backend with a grouped primitive of its own.
struct own_grouped : hmoe::backends::reference {
  int* calls;
  template <class Context, class Experts, class T>
  void forward_experts(const Context&, const Experts&,
                       hmoe::vector_view<const hmoe::dispatch::forward_batch<T>> batches) const {
    *calls += static_cast<int>(batches.size());
  }
  template <class Context, class Experts, class T>
  void backward_experts(const Context&, const Experts&,
                        hmoe::vector_view<const hmoe::dispatch::backward_batch<T>> batches, Experts&) const {
    *calls += 100 * static_cast<int>(batches.size());
  }
};
} // namespace

TEST_CASE("a backend's own grouped primitive is preferred") {
  auto experts = make_experts();
  int calls = 0;
  const hmoe::context ctx{own_grouped{{}, &calls}};
  const hmoe::workspace::scope scope(ctx.workspace());
  const std::vector<hmoe::dispatch::forward_batch<double>> forward(2);
  const std::vector<hmoe::dispatch::backward_batch<double>> backward(1);
  hmoe::dispatch::forward_experts(ctx, experts,
                                  hmoe::vector_view<const hmoe::dispatch::forward_batch<double>>(forward));
  auto gradients = experts;
  hmoe::dispatch::backward_experts(
      ctx, experts, hmoe::vector_view<const hmoe::dispatch::backward_batch<double>>(backward), gradients);
  CHECK(calls == 102);
}
