// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/last_cache.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

namespace detail {
/// The shortest of some runs of f(), in seconds: at least two, and more while they take less than `budget` together.
/// before() is called before each of them, and not timed.
template <class Before, class F> [[nodiscard]] double shortest_run(double budget, const Before& before, const F& f) {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  double least = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 2 || (std::chrono::duration<double>(clock::now() - start).count() < budget && run < 1000);
       ++run) {
    before();
    const auto begin = clock::now();
    f();
    least = std::min(least, std::chrono::duration<double>(clock::now() - begin).count());
  }
  return std::max(least, 1e-9);
}
template <class F> [[nodiscard]] double shortest_run(double budget, const F& f) {
  return shortest_run(budget, [] {}, f);
}

/// A batch of `tokens` tokens for each of `experts` experts, one expert a token.
template <class T> void assign_evenly(std::size_t experts, std::size_t tokens, assignment<T>& to) {
  const std::size_t all = experts * tokens;
  to.resize_tokens(all);
  for (std::size_t t = 0; t <= all; ++t)
    to.offsets()[t] = static_cast<index_t>(t);
  to.resize_entries();
  for (std::size_t t = 0; t < all; ++t) {
    to.experts()[t] = static_cast<index_t>(t % experts);
    to.weights()[t] = T(1);
  }
}
} // namespace detail

/// Measures what a context does with these experts, weights in their own format, in about `seconds`:
///   first_read      one row of every expert, after other memory has taken the place of the weights in the caches
///   next_read       one row of the widest expert, again and again
///   flops           256 rows of it
///   not_hidden      16 rows of every expert by `sorted`, not cached, against the sum of the above
///   scattered_read  the same by `scattered`
///   the others      copies of rows that no cache holds; tasks without work
/// Reads no weights' values into account and changes nothing. Experts that have no products cost nothing and are not
/// measured. Takes memory for four last caches and for 16 rows of every expert.
template <execution_context Context, class Experts>
[[nodiscard]] machine_limits measure_machine(const Context& ctx, const Experts& experts, double seconds = 0.5) {
  using T = typename Experts::value_type;
  constexpr std::size_t many = 256, most_values = std::size_t{1} << 24U;
  machine_limits found;
  found.threads = ctx.executor().concurrency();
  found.last_cache = static_cast<double>(last_cache_bytes());
  const double budget = seconds / 7;
  const std::size_t d = experts.d_model(), n = experts.size();
  const std::size_t few = std::clamp<std::size_t>(most_values / std::max<std::size_t>(1, n * d), 1, 16);

  // Four times what the system says: some caches hold more than a virtual machine is told.
  std::vector<T> other(static_cast<std::size_t>(4 * found.last_cache) / sizeof(T));
  const auto evict = [&] {
    for (T& value : other)
      value += T(1);
  };
  const std::size_t half = other.size() / 2, share = half / found.threads;
  const double copy = detail::shortest_run(budget, [&] {
    ctx.executor().for_each(found.threads, [&](std::size_t part, std::size_t) {
      std::copy_n(other.data() + part * share, share, other.data() + half + part * share);
    });
  });
  found.row_copy = 2 * static_cast<double>(share * found.threads * sizeof(T)) / copy;
  const auto idle = [](std::size_t, std::size_t) {};
  found.wait_seconds = detail::shortest_run(budget / 4, [&] { ctx.executor().for_each(found.threads, idle); });
  constexpr std::size_t tasks = 2000;
  found.task_seconds =
      detail::shortest_run(budget / 4, [&] { ctx.executor().for_each(tasks, idle); }) / static_cast<double>(tasks);

  const std::size_t rows = std::max(many, n * few);
  matrix<T> x(rows, d), y(rows, d);
  std::fill_n(x.data(), x.size(), T(0.5));
  std::vector<expert_rows<T>> one(n);
  double bytes = 0, all_flops = 0;
  std::size_t widest = 0;
  for (std::size_t e = 0; e < n; ++e) {
    one[e] = expert_rows<T>::forward(e, x.view().row_block(e, 1), y.view().row_block(e, 1), {});
    bytes += static_cast<double>(experts.bytes(e));
    all_flops += experts.flops_per_row(e);
    if (experts.flops_per_row(e) > experts.flops_per_row(widest))
      widest = e;
  }
  const double flops = experts.flops_per_row(widest);
  if (flops == 0 || bytes == 0)
    return found;
  const auto run = [&](const std::vector<expert_rows<T>>& some) {
    const typename Context::workspace_scope scope(ctx.workspace());
    experts.forward_rows(ctx, vector_view<const expert_rows<T>>(some));
  };
  const std::vector<expert_rows<T>> single{one[widest]},
      rows_of_one{expert_rows<T>::forward(widest, x.view().row_block(0, many), y.view().row_block(0, many), {})};
  const double again = detail::shortest_run(budget, [&] { run(single); });
  const double first = detail::shortest_run(budget, evict, [&] { run(one); });
  found.first_read = bytes / first;
  found.next_read = std::max(found.first_read, static_cast<double>(experts.bytes(widest)) / again);
  const double long_run = detail::shortest_run(budget, [&] { run(rows_of_one); });
  found.flops = flops * static_cast<double>(many - 1) / std::max(long_run - again, long_run / 2);

  const std::size_t tokens = n * few;
  const auto by = [&](const auto& strategy) {
    return detail::shortest_run(0, evict, [&] {
      const typename Context::workspace_scope scope(ctx.workspace());
      tape<T> tape(&ctx.workspace(), false);
      detail::assign_evenly(n, few, tape.assignment());
      strategy.forward(ctx, experts, std::as_const(x).view().row_block(0, tokens), y.view().row_block(0, tokens), tape);
    });
  };
  double in_order = std::numeric_limits<double>::infinity(), by_tokens = in_order;
  for (int round = 0; round < 3; ++round) { // in turns, since others may use the machine for a while
    in_order = std::min(in_order, by(sorted<>{}));
    by_tokens = std::min(by_tokens, by(scattered{}));
  }
  const double row = static_cast<double>(tokens * d * sizeof(T)) / found.row_copy; // of all tokens, once
  const double multiplied = all_flops * static_cast<double>(few - 1) / found.flops;
  if (few > 1)
    found.not_hidden =
        std::clamp((in_order - 5 * row - std::max(first, multiplied)) / std::min(first, multiplied), 0.0, 1.0);
  found.scattered_read = std::clamp(1 + (by_tokens + row - in_order) / first, 1.0, 2.0);
  return found;
}

} // namespace hmoe::dispatch
