// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

namespace hmoe::dispatch {

namespace detail {
/// The shortest of some runs of f(), in seconds: at least two, and more while they take less than `budget` together.
template <class F> [[nodiscard]] double shortest_run(double budget, const F& f) {
  using clock = std::chrono::steady_clock;
  double least = std::numeric_limits<double>::infinity(), spent = 0;
  for (int run = 0; run < 2 || (spent < budget && run < 1000); ++run) {
    const auto begin = clock::now();
    f();
    const double seconds = std::chrono::duration<double>(clock::now() - begin).count();
    least = std::min(least, seconds);
    spent += seconds;
  }
  return std::max(least, 1e-9);
}
} // namespace detail

/// Measures what a context does with these experts, weights in their own format, in about `seconds`: one row of every
/// expert, one row of one expert again and again, and 256 rows of it; copies of rows; tasks without work. Reads no
/// weights' values into account and changes nothing. Experts that have no products cost nothing and are not measured.
template <execution_context Context, class Experts>
[[nodiscard]] machine_limits measure_machine(const Context& ctx, const Experts& experts, double seconds = 0.3) {
  using T = typename Experts::value_type;
  constexpr std::size_t many = 256;
  machine_limits found;
  found.threads = ctx.executor().concurrency();
  const double budget = seconds / 5;
  const std::size_t d = experts.d_model(), n = experts.size();
  std::vector<expert_rows<T>> one(n);
  matrix<T> x(std::max(many, n), d), y(std::max(many, n), d);
  std::fill_n(x.data(), x.size(), T(0.5));
  double bytes = 0;
  std::size_t widest = 0;
  for (std::size_t e = 0; e < n; ++e) {
    one[e] = expert_rows<T>::forward(e, x.view().row_block(e, 1), y.view().row_block(e, 1), {});
    bytes += static_cast<double>(experts.bytes(e));
    if (experts.flops_per_row(e) > experts.flops_per_row(widest))
      widest = e;
  }
  const auto run = [&](const std::vector<expert_rows<T>>& rows) {
    const typename Context::workspace_scope scope(ctx.workspace());
    experts.forward_rows(ctx, vector_view<const expert_rows<T>>(rows));
  };
  const std::vector<expert_rows<T>> single{one[widest]},
      rows_of_one{expert_rows<T>::forward(widest, x.view().row_block(0, many), y.view().row_block(0, many), {})};
  const double flops = experts.flops_per_row(widest);
  if (flops > 0 && bytes > 0) {
    const double again = detail::shortest_run(budget, [&] { run(single); });
    found.first_read = bytes / detail::shortest_run(budget, [&] { run(one); });
    found.next_read = std::max(found.first_read, static_cast<double>(experts.bytes(widest)) / again);
    const double long_run = detail::shortest_run(budget, [&] { run(rows_of_one); });
    found.flops = flops * static_cast<double>(many - 1) / std::max(long_run - again, long_run / 2);
  }
  const double copy = detail::shortest_run(budget / 4, [&] { std::copy_n(x.data(), x.size(), y.data()); });
  found.row_copy = 2 * static_cast<double>(x.size() * sizeof(T)) / copy;
  const auto idle = [](std::size_t, std::size_t) {};
  found.wait_seconds = detail::shortest_run(budget / 4, [&] { ctx.executor().for_each(found.threads, idle); });
  constexpr std::size_t tasks = 2000;
  found.task_seconds =
      detail::shortest_run(budget / 4, [&] { ctx.executor().for_each(tasks, idle); }) / static_cast<double>(tasks);
  return found;
}

} // namespace hmoe::dispatch
