// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/last_cache.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

namespace detail {
/// Times of one thing, in seconds.
class run_times {
public:
  template <class F> void add(const F& f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    seconds_.push_back(std::max(passed.count(), 1e-9));
  }
  /// The lower quartile: what a run takes where nothing else disturbs it, and no lucky one.
  [[nodiscard]] double typical() const {
    std::vector<double> sorted = seconds_;
    const auto quarter = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() - 1) / 4);
    std::nth_element(sorted.begin(), quarter, sorted.end());
    return *quarter;
  }

private:
  std::vector<double> seconds_;
};

/// A batch with `rows` rows for each of `experts` experts: two neighbours for each token where their number is even,
/// else one.
template <class T> void assign_evenly(std::size_t experts, std::size_t rows, assignment<T>& to) {
  const std::size_t entries = experts * rows, each = experts % 2 == 0 ? 2 : 1;
  to.resize_tokens(entries / each);
  for (std::size_t t = 0; t <= entries / each; ++t)
    to.offsets()[t] = static_cast<index_t>(each * t);
  to.resize_entries();
  for (std::size_t a = 0; a < entries; ++a) {
    to.experts()[a] = static_cast<index_t>(a % experts);
    to.weights()[a] = T(1) / static_cast<T>(each);
  }
}

/// Memory that is read, so that nothing else is in the caches: four times the last one of them, since some hold more
/// than a virtual machine is told. It is not written: lines that have to be written back would slow down who reads
/// next.
template <class T> class other_memory {
public:
  explicit other_memory(std::size_t last_cache) : values_(4 * last_cache / sizeof(T), T(1)) {}
  template <execution_context Context> void read(const Context& ctx) const {
    constexpr std::size_t line = 64 / sizeof(T);
    const std::size_t parts = ctx.executor().concurrency(), share = values_.size() / parts;
    ctx.executor().for_each(parts, [&](std::size_t part, std::size_t) {
      T sum = 0;
      for (std::size_t i = part * share; i < (part + 1) * share; i += line)
        sum += values_[i];
      [[maybe_unused]] const volatile T read = sum;
    });
  }

private:
  std::vector<T> values_;
};
} // namespace detail

/// Measures what a context does with these experts, weights in their own format, in about `seconds`:
///   first_read      one row of every expert, after other memory has taken the place of the weights in the caches
///   next_read       one row of the widest expert, again and again
///   read_by_token   8 rows of every expert, not cached at first, by `per_token`: what the seven after the first take
///   flops           256 rows of the widest expert
///   not_hidden      16 rows of every expert by `sorted`, not cached, against the sum of the above
///   loop_seconds    16 rows of every expert, not cached, by `looped` against `sorted`
///   scattered_read  4 rows of every expert, not cached, by `scattered` against `sorted`
///   scattered_row   16 rows of every expert, not cached, by `scattered` against `sorted`
///   row_copy        256 rows or more, which no cache holds
///   the others      tasks without work
/// All of these take turns, so that a slow moment of the machine does not fall on one of them, three times at least;
/// the lower quartile of each counts. Reads no weights' values into account and changes nothing. Experts that have no
/// products cost nothing and are not measured. Takes memory for four last caches and for 16 rows of every expert.
template <execution_context Context, class Experts>
[[nodiscard]] machine_limits measure_machine(const Context& ctx, const Experts& experts, double seconds = 0.5) {
  using T = typename Experts::value_type;
  constexpr std::size_t many = 256, most_values = std::size_t{1} << 24U;
  machine_limits found;
  found.threads = ctx.executor().concurrency();
  const std::size_t d = experts.d_model(), n = experts.size();
  const std::size_t most = std::clamp<std::size_t>(most_values / std::max<std::size_t>(1, n * d), 1, 16);
  const std::size_t few = std::min<std::size_t>(most, 4), several = std::min<std::size_t>(most, 8);

  const std::size_t rows = std::max(many, n * most);
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
  const bool has_products = all_flops != 0 && bytes != 0;
  const std::vector<expert_rows<T>> single = has_products ? std::vector{one[widest]} : one,
                                    long_one{expert_rows<T>::forward(widest, x.view().row_block(0, many),
                                                                     y.view().row_block(0, many), {})};
  const auto run = [&](const std::vector<expert_rows<T>>& some) {
    const typename Context::workspace_scope scope(ctx.workspace());
    experts.forward_rows(ctx, vector_view<const expert_rows<T>>(some));
  };
  const auto batch = [&](const auto& strategy, std::size_t each) {
    const typename Context::workspace_scope scope(ctx.workspace());
    tape<T> tape(&ctx.workspace(), false);
    detail::assign_evenly(n, each, tape.assignment());
    const std::size_t tokens = tape.assignment().tokens();
    strategy.forward(ctx, experts, std::as_const(x).view().row_block(0, tokens), y.view().row_block(0, tokens), tape);
  };

  const detail::other_memory<T> other(last_cache_bytes());
  constexpr std::size_t tasks = 2000;
  const auto idle = [](std::size_t, std::size_t) {};
  detail::run_times copies, waits, many_tasks, first, again, long_run, in_order, few_in_order, in_loop, all_scattered,
      few_scattered, several_by_token;
  const auto copy_row = [&](std::size_t i) { std::copy_n(std::as_const(x).row(i).begin(), d, y.row(i).begin()); };
  const auto cold = [&](detail::run_times& times, const auto& f) {
    other.read(ctx);
    times.add(f);
  };
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0;
       round < 3 || (round < 1000 && std::chrono::steady_clock::now() - start < std::chrono::duration<double>(seconds));
       ++round) {
    cold(copies, [&] { hmoe::for_each_row(ctx, rows, copy_row); });
    for (int i = 0; i < 10; ++i)
      waits.add([&] { ctx.executor().for_each(found.threads, idle); });
    many_tasks.add([&] { ctx.executor().for_each(tasks, idle); });
    if (!has_products)
      continue;
    cold(first, [&] { run(one); });
    run(single);
    again.add([&] { run(single); });
    long_run.add([&] { run(long_one); });
    cold(in_order, [&] { batch(sorted<>{}, most); });
    cold(all_scattered, [&] { batch(scattered{}, most); });
    cold(few_in_order, [&] { batch(sorted<>{}, few); });
    cold(few_scattered, [&] { batch(scattered{}, few); });
    cold(several_by_token, [&] { batch(per_token{}, several); });
    cold(in_loop, [&] { batch(looped{}, most); });
  }
  found.row_copy = 2 * static_cast<double>(x.size() * sizeof(T)) / copies.typical();
  found.wait_seconds = waits.typical();
  found.task_seconds = many_tasks.typical() / static_cast<double>(tasks);
  if (!has_products)
    return found;

  const double flops = experts.flops_per_row(widest);
  found.first_read = bytes / first.typical();
  found.next_read = std::max(found.first_read, static_cast<double>(experts.bytes(widest)) / again.typical());
  found.flops =
      flops * static_cast<double>(many - 1) / std::max(long_run.typical() - again.typical(), long_run.typical() / 2);
  const auto copy_of = [&](std::size_t each) { // of `each` rows of all experts, once
    return static_cast<double>(n * each * d * sizeof(T)) / found.row_copy;
  };
  const double multiplied = all_flops * static_cast<double>(most - 1) / found.flops, copies_of_sorted = 4;
  const double combined = n % 2 == 0 ? 0.5 : 1; // tokens ÷ rows
  if (most > 1)
    found.not_hidden = std::clamp(
        (in_order.typical() - (copies_of_sorted + combined) * copy_of(most) - std::max(first.typical(), multiplied)) /
            std::min(first.typical(), multiplied),
        0.0, 1.0);
  const double by_token = several_by_token.typical(), copies_by_token = (2 + combined) * copy_of(several);
  found.read_by_token = several > 1 ? bytes * static_cast<double>(several - 1) /
                                          std::max(by_token - copies_by_token - first.typical(), by_token / 10)
                                    : found.next_read;
  const double copied_by_loop = (6 - copies_of_sorted - combined) * copy_of(most);
  found.loop_seconds = std::max(0.0, in_loop.typical() - in_order.typical() - copied_by_loop) /
                       static_cast<double>(n * experts.phases_of(ctx));
  const double saved = (copies_of_sorted - static_cast<double>(experts.scatter_copies(ctx))) * copy_of(few);
  found.scattered_read =
      std::clamp(1 + (few_scattered.typical() + saved - few_in_order.typical()) / first.typical(), 1.0, 2.0);
  if (most > few) {
    std::vector<expert_work> work(n);
    assignment<T> even;
    detail::assign_evenly(n, most, even);
    const dispatch_load load = load_of(ctx, experts, even, false, work);
    const double more =
        predict(strategy::scattered, load, found).total() - predict(strategy::sorted, load, found).total();
    found.scattered_row = (all_scattered.typical() - in_order.typical() - more) / static_cast<double>(even.size());
  }
  return found;
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
