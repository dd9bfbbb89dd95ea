// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace hmoe::testing {

/// What a selection promises. All of it holds for top-k, top-p and thresholds; switch off what yours does not mean to
/// keep.
struct selection_options {
  bool may_choose_none = true;      ///< off: each token must get an expert
  bool prefers_probable = true;     ///< an expert is chosen only if all more probable ones are
  bool ties_to_lower_id = true;     ///< of two equally probable experts the higher id is chosen only if the lower is
  bool treats_experts_alike = true; ///< renumbering the experts renumbers the choice
  std::size_t rows = 200;           ///< how many random rows to try
};

namespace detail {

/// Rows of N probabilities: random, random with many ties, uniform, and certain of one expert.
template <class T> std::vector<std::vector<T>> probability_rows(std::size_t experts, std::size_t count) {
  std::vector<std::vector<T>> rows(1, std::vector<T>(experts, T(1) / static_cast<T>(experts)));
  for (std::size_t e = 0; e < experts; ++e) {
    rows.emplace_back(experts, T(0));
    rows.back()[e] = 1;
  }
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<T> row = random_values<T>(experts, 100 + i, i % 4 == 0 ? 4 : 1);
    if (i % 2 == 0) { // three levels, so that ties are the rule
      for (T& value : row)
        value = std::clamp(std::round(value), T(-1), T(1)) + T(1.5);
      const T sum = std::accumulate(row.begin(), row.end(), T(0));
      for (T& value : row)
        value /= sum;
    } else {
      const std::vector<T> logits = row;
      routing::softmax{}.forward(vector_view<const T>(logits), vector_view<T>(row));
    }
    rows.push_back(row);
  }
  return rows;
}

/// The chosen ids in ascending order; breaks the laws about what a selection may write.
template <class T, class Selection>
std::vector<index_t> choice(const Selection& select, const std::vector<T>& row, report& found) {
  std::size_t most = row.size();
  if constexpr (requires { select.max_selected(row.size()); })
    most = std::min<std::size_t>(select.max_selected(row.size()), row.size());
  guarded_array<index_t> slots(most, no_index - 1);
  guarded_array<T> scratch(routing::selection_scratch(select, row.size()));
  const std::size_t count = routing::select_row(select, vector_view<const T>(row), slots.view(), scratch.view());
  if (!found.expect(count <= most, "chooses at most max_selected experts", "it chose ", count, " of ", row.size(),
                    ", at most ", most, " are possible"))
    return {};
  found.expect(slots.margins_intact(), "writes only into the slots it was given", "memory beside the ", most,
               " slots changed");
  found.expect(scratch.margins_intact(), "uses only the scratch it asked for", "memory beside the ",
               scratch.view().size(), " values of scratch changed");
  std::vector<index_t> chosen(slots.view().begin(), slots.view().begin() + count);
  std::sort(chosen.begin(), chosen.end());
  for (const index_t id : chosen)
    if (!found.expect(id < row.size(), "chooses experts that exist", "it chose expert ", id, " of ", row.size()))
      return {};
  found.expect(std::adjacent_find(chosen.begin(), chosen.end()) == chosen.end(), "chooses no expert twice",
               "an expert of ", row.size(), " came twice");
  return chosen;
}

template <class T> std::string describe(const std::vector<T>& row) {
  std::ostringstream text;
  for (const T value : row)
    text << (text.tellp() == 0 ? "[" : ", ") << value;
  return text.str() + "]";
}

} // namespace detail

/// Checks a selection among N experts over random rows with and without ties, the uniform row, and rows that are
/// certain of one expert.
template <class T, selection<T> Selection>
[[nodiscard]] report check_selection(const Selection& select, std::size_t experts,
                                     const selection_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if constexpr (requires { select.validate(experts); })
      select.validate(experts);
    const auto rows = detail::probability_rows<T>(experts, options.rows);
    for (const std::vector<T>& row : rows) {
      const std::vector<index_t> chosen = detail::choice(select, row, found);
      std::vector<bool> is_chosen(experts, false);
      for (const index_t e : chosen)
        is_chosen[e] = true;
      if (!options.may_choose_none)
        found.expect(!chosen.empty(), "chooses an expert for each token", "none for ", detail::describe(row));
      for (std::size_t i = 0; i < experts; ++i)
        for (std::size_t j = 0; j < experts; ++j) {
          if (is_chosen[i] || !is_chosen[j])
            continue;
          if (options.prefers_probable)
            found.expect(!(row[i] > row[j]), "prefers more probable experts", "it chose expert ", j, " but not ", i,
                         " for ", detail::describe(row));
          if (options.ties_to_lower_id)
            found.expect(!(row[i] == row[j] && i < j), "gives ties to the lower id", "it chose expert ", j, " but not ",
                         i, " for ", detail::describe(row));
        }
      std::vector<T> sorted = row;
      std::sort(sorted.begin(), sorted.end());
      if (options.treats_experts_alike && std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end()) {
        const std::vector<T> reversed(row.rbegin(), row.rend());
        std::vector<index_t> back = detail::choice(select, reversed, found);
        for (index_t& id : back)
          id = static_cast<index_t>(experts - 1) - id;
        std::sort(back.begin(), back.end());
        found.expect(back == chosen, "treats experts alike", "renumbering the experts changed who is chosen for ",
                     detail::describe(row));
      }
    }
    found.expect(repeatable([&] {
                   std::vector<index_t> all;
                   report ignored;
                   for (const std::vector<T>& row : rows) {
                     const auto chosen = detail::choice(select, row, ignored);
                     all.insert(all.end(), chosen.begin(), chosen.end());
                     all.push_back(no_index);
                   }
                   return all;
                 }),
                 "chooses the same every time", "the same rows again, or on another thread, gave another choice");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
