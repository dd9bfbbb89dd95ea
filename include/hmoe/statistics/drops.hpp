// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/plan.hpp>

#include <cstdint>
#include <vector>

namespace hmoe::statistics {

/// Share of the assignment's (token, expert) entries that no expert worked on; 0 when there are none.
[[nodiscard]] inline double drop_rate(const plan& planned) noexcept {
  const std::size_t entries = planned.slots().size();
  return entries == 0 ? 0 : static_cast<double>(planned.dropped()) / static_cast<double>(entries);
}

/// Share of the plan's slots that are padding: rows that are computed for nothing; 0 when there are none.
[[nodiscard]] inline double padding_rate(const plan& planned) noexcept {
  return planned.size() == 0 ? 0 : static_cast<double>(planned.padding()) / static_cast<double>(planned.size());
}

/// [N] dropped entries of each expert. The plan must be one of this assignment.
template <class T>
[[nodiscard]] std::vector<std::uint64_t> dropped_per_expert(const assignment<T>& assigned, const plan& planned) {
  require(planned.slots().size() == assigned.size(), "the plan was made of ", planned.slots().size(),
          " entries, the assignment has ", assigned.size());
  std::vector<std::uint64_t> dropped(planned.expert_count());
  for (std::size_t a = 0; a < assigned.size(); ++a)
    if (planned.slots()[a] == no_index) {
      require(assigned.experts()[a] < dropped.size(), "the assignment names expert ", assigned.experts()[a],
              ", the plan has ", dropped.size());
      ++dropped[assigned.experts()[a]];
    }
  return dropped;
}

namespace detail {
/// Of the tokens `without` an expert, padding included, the share that is no padding.
template <class T> [[nodiscard]] double share_of_valid(const assignment<T>& assigned, std::size_t without) noexcept {
  const std::size_t padding = assigned.tokens() - assigned.valid_tokens(), valid = assigned.valid_tokens();
  return valid == 0 ? 0 : static_cast<double>(without - padding) / static_cast<double>(valid);
}
} // namespace detail

/// Share of the tokens that the router gave no expert; 0 without tokens. Padding tokens do not count.
template <class T> [[nodiscard]] double unrouted_rate(const assignment<T>& assigned) noexcept {
  std::size_t without = 0;
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    without += assigned.experts_of(t).empty() ? 1 : 0;
  return detail::share_of_valid(assigned, without);
}

/// Share of the tokens that no expert works on, because the router gave them none or all were dropped; 0 without
/// tokens. Padding tokens do not count. The plan must be one of this assignment.
template <class T> [[nodiscard]] double unserved_rate(const assignment<T>& assigned, const plan& planned) {
  require(planned.slots().size() == assigned.size(), "the plan was made of ", planned.slots().size(),
          " entries, the assignment has ", assigned.size());
  std::size_t without = 0;
  for (std::size_t t = 0; t < assigned.tokens(); ++t) {
    bool served = false;
    for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a)
      served = served || planned.slots()[a] != no_index;
    without += served ? 0 : 1;
  }
  return detail::share_of_valid(assigned, without);
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
