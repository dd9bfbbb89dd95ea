// SPDX-License-Identifier: MIT
// What passes over whole banks take from the workspace, beside what is laid out for them.
#include <hmoe/backends/simd.hpp>
#include <hmoe/backends/simd/batch_layout.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

namespace {

using hmoe::row_limits;
using hmoe::backends::simd;
using hmoe::backends::simd_detail::most_needed;
using list = std::vector<std::size_t>;

/// Runs no task: passes take their memory, cut their work and compute nothing.
struct idle {
  [[nodiscard]] static std::size_t concurrency() noexcept { return 1; }
  template <class Task> static void for_each(std::size_t, Task&&) noexcept {}
};
auto context_of(hmoe::workspace& memory) { return hmoe::context{simd<>{}, idle{}, memory}; }

/// The bytes that f(context) takes from the workspace.
template <class F> std::size_t peak_of(const F& f) {
  hmoe::workspace memory;
  f(context_of(memory));
  return memory.peak();
}
template <class F> std::size_t laid_out(const F& f) {
  hmoe::workspace dry{hmoe::dry_run{}};
  f(context_of(dry));
  return dry.peak();
}

/// Rows for each expert, within the limits: as many as possible on the widest experts, on the narrowest, even, at
/// random; one for each of some of the widest experts and the others on the widest; and fewer for each, which may be
/// one chunk in place of two that are shorter.
std::vector<list> rows_within(const row_limits& limits, const list& widths, support::random_source& random) {
  const std::size_t n = widths.size();
  list by_width(n);
  std::iota(by_width.begin(), by_width.end(), std::size_t{0});
  std::sort(by_width.begin(), by_width.end(),
            [&](std::size_t a, std::size_t b) { return widths[a] != widths[b] ? widths[a] > widths[b] : a < b; });
  const auto fill = [&](list rows, const auto& order, std::size_t each) {
    std::size_t left = limits.total - std::accumulate(rows.begin(), rows.end(), std::size_t{0});
    for (const std::size_t e : order) {
      const std::size_t more = std::min(left, each - rows[e]);
      rows[e] += more;
      left -= more;
    }
    return rows;
  };
  std::vector<list> all{fill(list(n, 0), list(by_width.rbegin(), by_width.rend()), limits.each)};
  for (const std::size_t each : {limits.each, limits.each * 7 / 8, limits.each * 3 / 4, limits.each * 5 / 8,
                                 limits.each / 2, std::size_t{256}, std::size_t{96}})
    all.push_back(fill(list(n, 0), by_width, std::min(each, limits.each)));
  list even(n), some(n);
  for (std::size_t e = 0; e < n; ++e)
    even[e] = std::min(limits.each, (e + 1) * limits.total / n - e * limits.total / n);
  for (std::size_t i = 0; i < limits.total; ++i)
    if (const std::size_t e = random.size(0, n - 1); some[e] < limits.each)
      ++some[e];
  all.push_back(even);
  all.push_back(some);
  for (const std::size_t part : {n / 8, n / 3, n}) {
    list rows(n, 0);
    for (std::size_t i = 0; i < std::min({part, limits.total, limits.each == 0 ? 0 : n}); ++i)
      rows[by_width[i]] = 1;
    all.push_back(fill(rows, by_width, limits.each));
  }
  return all;
}

/// A list of rows that nobody reads or writes.
template <class T> struct batch {
  std::vector<hmoe::expert_rows<T>> rows;

  /// `block`: the rows of an entry, where an expert's come as several; 0: all of them.
  template <class Bank> batch(const Bank& bank, const list& counts, bool keeps, std::size_t block = 0) {
    static T somewhere;
    const auto view = [](std::size_t count, std::size_t columns) {
      return hmoe::matrix_view<T>(&somewhere, count, columns);
    };
    for (std::size_t e = 0; e < counts.size(); ++e)
      for (std::size_t left = counts[e], first = 1; first != 0 || left != 0; first = 0) {
        const std::size_t count = block == 0 ? left : std::min(left, block);
        const auto each = view(count, bank.d_model());
        rows.push_back({.expert = e,
                        .count = count,
                        .x = each,
                        .y = each,
                        .saved = keeps ? view(count, bank.saved_per_row(e)) : hmoe::matrix_view<T>{},
                        .dy = each,
                        .dx = each});
        left -= count;
      }
  }
  [[nodiscard]] hmoe::vector_view<const hmoe::expert_rows<T>> view() const { return {rows.data(), rows.size()}; }
};

/// The laid out bytes against those of all lists of rows: peaks(rows) are the bytes of the passes.
template <class Layout, class Peaks>
void check(const row_limits& limits, const list& widths, const Layout& layout, const Peaks& peaks) {
  support::random_source random(57);
  const std::size_t announced = laid_out(layout);
  std::size_t most = 0;
  for (const list& rows : rows_within(limits, widths, random))
    for (const std::size_t peak : peaks(rows)) {
      CHECK(peak <= announced);
      most = std::max(most, peak);
    }
  CAPTURE(most);
  CHECK(announced <= most + most / 4 + 32768);
}

/// f(limits, widths, d) over a grid.
template <class F> void over_grid(const F& f) {
  list halves(40), falling(300);
  for (std::size_t e = 0; e < halves.size(); ++e)
    halves[e] = e % 2 == 0 ? 3 : 200;
  for (std::size_t e = 0; e < falling.size(); ++e)
    falling[e] = 3000 / (10 * e + 1);
  const std::vector<list> all_widths{{1},          {700},  {0, 0}, {64, 64, 64, 64}, {2000, 1, 0, 30},
                                     list(300, 2), halves, falling};
  for (const list& widths : all_widths)
    for (const std::size_t total : {0U, 1U, 2U, 13U, 24U, 100U, 257U, 1024U})
      for (const std::size_t d : {1U, 24U})
        for (const std::size_t each : {total, (total + 2) / 3}) {
          CAPTURE(widths.size());
          CAPTURE(widths[0]);
          CAPTURE(total);
          CAPTURE(each);
          CAPTURE(d);
          f(row_limits{total, each}, widths, d);
        }
}

template <class Bank> void check_training(const row_limits& limits, const list& widths, const Bank& bank) {
  using T = typename Bank::value_type;
  Bank gradients = bank;
  check(
      limits, widths, [&](const auto& dry) { simd<>::lay_out_forward_bank(dry, bank, limits); },
      [&](const list& rows) {
        const batch<T> kept(bank, rows, true, limits.block), other(bank, rows, false, limits.block);
        return list{peak_of([&](const auto& ctx) { simd<>::forward_bank(ctx, bank, kept.view()); }),
                    peak_of([&](const auto& ctx) { simd<>::forward_bank(ctx, bank, other.view()); })};
      });
  const row_limits joined{limits.total, limits.each};
  check(
      joined, widths, [&](const auto& dry) { simd<>::lay_out_backward_bank(dry, bank, joined); },
      [&](const list& rows) {
        const batch<T> kept(bank, rows, true);
        return list{peak_of([&](const auto& ctx) { simd<>::backward_bank(ctx, bank, kept.view(), gradients); })};
      });
}
template <class Bank> void check_packed(const row_limits& limits, const list& widths, const Bank& bank) {
  check(
      limits, widths, [&](const auto& dry) { bank.lay_out_forward_rows(dry, limits); },
      [&](const list& rows) {
        const batch<float> some(bank, rows, false, limits.block);
        return list{peak_of([&](const auto& ctx) { bank.forward_rows(ctx, some.view()); })};
      });
}

using hmoe::experts::glu_bank, hmoe::experts::mlp_bank, hmoe::experts::silu, hmoe::experts::relu;
namespace formats = hmoe::backends::formats;

} // namespace

TEST_CASE_TEMPLATE("weights as they are: never less than a pass takes, and at most 1.25 × the most", T, float, double) {
  over_grid([](const row_limits& limits, const list& widths, std::size_t d) {
    check_training(limits, widths, glu_bank<T, silu>(d, widths));
    check_training(limits, widths, mlp_bank<T, relu>(d, widths));
  });
}

TEST_CASE_TEMPLATE("packed weights: never less than a pass takes, and at most 1.25 × the most", Format, formats::f32,
                   formats::q4) {
  over_grid([](const row_limits& limits, const list& widths, std::size_t d) {
    check_packed(limits, widths, simd<>::pack<Format>(glu_bank<float, silu>(d, widths)));
  });
}

TEST_CASE("rows of an expert in blocks: never less than a pass takes, and at most 1.25 × the most") {
  for (const list& widths : {list{700}, list{2000, 1, 0, 30}, list(60, 100)})
    for (const std::size_t block : {1U, 5U, 32U, 300U, 1500U})
      for (const std::size_t total : {13U, 257U, 2100U})
        for (const std::size_t each : {total, (total + 2) / 3}) {
          CAPTURE(widths.size());
          CAPTURE(block);
          CAPTURE(total);
          CAPTURE(each);
          const row_limits limits{total, each, block};
          check_training(limits, widths, glu_bank<float, silu>(24, widths));
          check_packed(limits, widths, simd<>::pack(glu_bank<float, silu>(24, widths)));
        }
}

TEST_CASE("more rows than a batch holds: what a batch holds is laid out, or the rows of one chunk") {
  const list widths{2500, 2500, 9000, 1};
  for (const std::size_t total : {500U, 1500U, 4000U}) {
    CAPTURE(total);
    const row_limits limits{total, total};
    check_training(limits, widths, glu_bank<float, silu>(2, widths));
    check_packed(limits, widths, simd<>::pack(glu_bank<float, silu>(2, widths)));
  }
  check_training({300, 300}, {20'000}, glu_bank<float, silu>(1, {20'000}));
  check_packed({100, 100}, {40'000}, simd<>::pack(glu_bank<float, silu>(1, {40'000})));
  // Chunks of one expert take turns on the way back.
  check_training({5000, 5000}, {3}, glu_bank<float, silu>(2, {3}));
}

TEST_CASE("most_needed against trying all numbers of things") {
  support::random_source random(58);
  for (int i = 0; i < 100; ++i) {
    std::vector<most_needed::of_expert> experts(random.size(1, 4));
    for (auto& e : experts)
      e = {random.size(0, 9), random.size(0, 4)};
    const most_needed most(experts);
    for (std::size_t count = 0; count < 20; ++count) {
      std::vector<std::size_t> best(count + 1, 0); // of so many things of the experts before
      for (const auto& e : experts)
        for (std::size_t c = count + 1; c-- > 0;)
          for (std::size_t k = 0; k <= std::min(c, e.most); ++k)
            best[c] = std::max(best[c], best[c - k] + k * e.each);
      CHECK(most(count) == best[count]);
    }
  }
}
