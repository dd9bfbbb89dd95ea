// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// Turns an assignment (by token) into a plan (by expert) with a stable counting sort: O(entries + experts), tokens
/// ascend within each expert. hmoe::error for offsets that descend or do not fit the ids, before `result` is touched.
template <class T> void build_plan(const assignment<T>& assigned, std::size_t expert_count, plan& result) {
  assigned.require_ascending_offsets(); // sums that did not fit 32 bits descend somewhere
  require(assigned.size() < no_index, "an assignment of ", assigned.size(), " entries is too long for 32-bit slots");
  require(assigned.experts().size() == assigned.size(), "the assignment has ", assigned.size(),
          " entries by its offsets, but ", assigned.experts().size(), " ids");
  result.resize(expert_count, assigned.size(), assigned.size());
  const auto offsets = result.offsets();
  for (const index_t e : assigned.experts())
    ++offsets[e + 1];
  for (std::size_t e = 0; e < expert_count; ++e)
    offsets[e + 1] += offsets[e];
  // offsets[e] serves as the write position of expert e; afterwards it stands at the end of e, so all move up by one.
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    for (index_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
      const index_t slot = offsets[assigned.experts()[a]]++;
      result.tokens()[slot] = static_cast<index_t>(t);
      result.entries()[slot] = a;
      result.slots()[a] = slot;
    }
  for (std::size_t e = expert_count; e > 0; --e)
    offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

/// The plan of a tape's assignment, into the tape; a probe is told.
template <execution_context Context, class Experts, class T>
void build_plan(const Context& ctx, const Experts& experts, tape<T>& tape) {
  [[maybe_unused]] probes::watch<Context> watched;
  if constexpr (probes::observed<Context>)
    watched.begin(ctx, {probes::stage::plan, probes::direction::forward, tape.assignment().size()});
  build_plan(std::as_const(tape).assignment(), experts.size(), tape.plan());
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
