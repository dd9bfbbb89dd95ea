// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/execution/split_products.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace hmoe;

namespace {
template <class Math> std::vector<matrix<float>> all_products(const Math& math, std::size_t m, std::size_t n) {
  support::random_source random(61);
  constexpr std::size_t k = 7;
  const auto a = support::random_matrix<float>(random, m, k), at = support::random_matrix<float>(random, k, m),
             b = support::random_matrix<float>(random, k, n), bt = support::random_matrix<float>(random, n, k),
             start = support::random_matrix<float>(random, m, n);
  std::vector<matrix<float>> c(4, start);
  math.multiply_transposed(a.view(), bt.view(), c[0].view());
  math.multiply(a.view(), b.view(), c[1].view());
  math.accumulate(a.view(), b.view(), c[2].view());
  math.accumulate_transposed(at.view(), b.view(), c[3].view());
  return c;
}

int workers = 2;
struct static_at_run_time {
  static std::size_t concurrency() { return static_cast<std::size_t>(workers); }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    executors::serial{}.for_each(count, task);
  }
};
template <class Backend, class Executor> constexpr bool can_split = can_split_products<context<Backend, Executor>>;
} // namespace

TEST_CASE("which contexts can split products") {
  static_assert(can_split<backends::reference, executors::openmp>);
  static_assert(can_split<backends::reference, static_at_run_time>);
  static_assert(!can_split<backends::reference, executors::serial>);
}

TEST_CASE("split products are the backend's") {
  const executors::openmp threads{3};
  for (const std::size_t m : {0U, 1U, 96U, 97U, 300U}) {
    const auto whole = all_products(backends::reference{}, m, 5),
               split = all_products(split_products(backends::reference{}, threads), m, 5);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      CAPTURE(m);
      CAPTURE(i);
      REQUIRE(split[i].size() == whole[i].size());
      CHECK((whole[i].size() == 0 ||
             std::memcmp(split[i].data(), whole[i].data(), whole[i].size() * sizeof(float)) == 0));
    }
  }
}

TEST_CASE("the way back of an expert that has most of the work has the same bits, and is shared among the threads") {
  constexpr std::size_t d = 6, tokens = 400;
  support::random_source random(62);
  moe_layer layer{expert_set{experts::glu_bank<double, experts::silu>{d, {130, 3}, experts::biases::all}},
                  routing::top_k_router<double>{d, 2, 2}};
  layer.initialize(seed{63}, {.router_stddev = 1});
  const auto x = support::random_matrix<double>(random, tokens, d),
             dy = support::random_matrix<double>(random, tokens, d);
  const auto run = [&](const auto& executor) {
    const context ctx{backends::reference{}, executor};
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    matrix<double> y(tokens, d), dx(tokens, d);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, dy, dx, gradients);
    std::vector<double> all(dx.data(), dx.data() + dx.size());
    gradients.visit_parameters([&](const parameter_info&, matrix_view<double> view) {
      all.insert(all.end(), view.data(), view.data() + view.size());
    });
    return all;
  };
  const auto expected = run(executors::serial{});
  CHECK(run(executors::openmp{1}) == expected);
  CHECK(run(executors::openmp{3}) == expected);
}
