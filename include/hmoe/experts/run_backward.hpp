// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/execution/operations.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/split_products.hpp>
#include <hmoe/experts/run.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>
#include <vector>

/// The backward pass over rows of experts, by whom run.hpp decides; beside it the function that lays out its memory.
namespace hmoe::experts {

namespace detail {

/// An entry of a list, and where its scratch begins.
struct backward_task {
  std::size_t rows, scratch;
  double cost;

  /// Most expensive first.
  struct before {
    [[nodiscard]] bool operator()(const backward_task& a, const backward_task& b) const noexcept {
      return a.cost != b.cost ? a.cost > b.cost : a.rows < b.rows;
    }
  };
};
template <class T> struct backward_memory {
  backward_memory(std::pmr::memory_resource* memory, std::size_t task_count, std::size_t scratch_size)
      : tasks(task_count, memory), scratch(scratch_size, memory) {}

  buffer<backward_task> tasks;
  buffer<T> scratch;
};

/// The backward pass of experts whose rows are contiguous. Gradients of an expert sum over all of its rows in order, so
/// an expert is one task; they are started in descending order of cost, which keeps the threads evenly loaded when
/// experts are unequal. Where one expert has more than a quarter of the work (all tokens on one expert, a dense layer),
/// experts go one after the other and the threads share the products of each.
template <execution_context Context, class Experts, class T>
void backward_experts(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows,
                      Experts& gradients) {
  std::size_t scratch_size = 0;
  for (const expert_rows<T>& r : rows)
    scratch_size += r.count * experts.scratch_per_row(r.expert);
  backward_memory<T> memory(&ctx.workspace(), rows.size(), scratch_size);
  auto& tasks = memory.tasks;
  double total = 0, largest = 0;
  for (std::size_t i = 0, scratch = 0; i < rows.size(); ++i) {
    const double cost = static_cast<double>(rows[i].count) * experts.flops_per_row(rows[i].expert);
    tasks[i] = {i, scratch, cost};
    scratch += rows[i].count * experts.scratch_per_row(rows[i].expert);
    total += cost;
    largest = std::max(largest, cost);
  }
  const auto run = [&](const auto& math, const backward_task& t, [[maybe_unused]] std::size_t worker) {
    const expert_rows<T>& r = rows[t.rows];
    experts.backward(probes::math_for(ctx, math, r.expert, worker), r.expert, r.x, r.saved, r.dy, r.dx,
                     matrix_view<T>(memory.scratch.data() + t.scratch, r.count, experts.scratch_per_row(r.expert)),
                     gradients);
  };
  if constexpr (can_split_products<Context>) {
    if (largest > total / 4) {
      const split_products math(ctx.backend(), ctx.executor());
      for (const backward_task& t : tasks)
        run(math, t, 0);
      return;
    }
  }
  std::sort(tasks.begin(), tasks.end(), backward_task::before{});
  ctx.executor().for_each(tasks.size(),
                          [&](std::size_t i, std::size_t worker) { run(ctx.backend(), tasks[i], worker); });
}

template <execution_context Context, class Bank, class T>
void backward_bank(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> local, Bank& gradients) {
  if constexpr (operations::bank_passes<Context, Bank>()) {
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context> && !probes::observes_stages<typename Context::backend_type>)
      watched.begin(ctx, detail::whole_experts(bank, local, probes::direction::backward));
    ctx.backend().backward_bank(ctx, bank, local, gradients);
  }
}

template <execution_context Context, class Bank>
void lay_out_backward_bank(const Context& dry, const Bank& bank, const row_limits& limits) {
  if constexpr (operations::bank_passes<Context, Bank>())
    dry.backend().lay_out_backward_bank(dry, bank, limits);
}

/// f(rows), the blocks of an expert joined: then each expert comes once.
template <execution_context Context, class T, class F>
void with_joined_blocks(const Context& ctx, vector_view<const expert_rows<T>> rows, const F& f) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    count += i == 0 || rows[i].expert != rows[i - 1].expert ? 1 : 0;
  if (count == rows.size())
    return f(rows);
  const typename Context::workspace_scope scope(ctx.workspace());
  buffer<expert_rows<T>> joined(count, &ctx.workspace());
  for (std::size_t i = 0, next = 0, first = 0; i < rows.size(); first = i) {
    std::size_t total = 0;
    for (; i < rows.size() && rows[i].expert == rows[first].expert; ++i)
      total += rows[i].count;
    joined[next++] = rows[first].joined(total);
  }
  f(std::as_const(joined).view());
}

/// Each expert comes once.
template <execution_context Context, class Experts, class T>
void backward_joined(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows,
                     Experts& gradients) {
  const typename Context::workspace_scope scope(ctx.workspace());
  detail::remaining_rows<T> others(rows.size(), &ctx.workspace());
  experts.for_each_bank_with(gradients, [&, b = std::size_t{0}](const auto& bank, vector_view<const std::size_t> ids,
                                                                auto& bank_gradients) mutable {
    const std::size_t own = b++;
    if (experts::backward_runner(ctx, bank) == runner::tiles)
      return others.add_bank(experts, own, rows);
    detail::with_rows_of_bank(ctx, experts, own, rows, [&](vector_view<const expert_rows<T>> local) {
      detail::backward_bank(probes::placed(ctx, probes::renumbered{ids}), bank, local, bank_gradients);
    });
  });
  detail::backward_experts(ctx, experts, others.view(), gradients);
}
} // namespace detail

/// dx of all rows, gradients += ∂L/∂weights.
template <execution_context Context, class Experts, class T>
void backward_rows(const Context& ctx, const Experts& experts, vector_view<const expert_rows<T>> rows,
                   Experts& gradients) {
  if (!rows.empty() && rows[0].scatters()) {
    require(experts.gathers_rows(ctx), "backward_rows: rows scatter, and not all banks of the set can do that in this "
                                       "context: ask gathers_rows(ctx)");
    return detail::for_each_turn(
        ctx, experts, rows, [&](std::size_t own, vector_view<const expert_rows<T>> turn, bool) {
          experts.for_each_bank_with(
              gradients,
              [&, b = std::size_t{0}](const auto& bank, vector_view<const std::size_t> ids, auto& sums) mutable {
                if (b++ == own)
                  detail::with_rows_of_bank(ctx, experts, own, turn, [&](vector_view<const expert_rows<T>> local) {
                    detail::backward_bank(probes::placed(ctx, probes::renumbered{ids}), bank, local, sums);
                  });
              });
        });
  }
  detail::with_joined_blocks(ctx, rows, [&](vector_view<const expert_rows<T>> joined) {
    detail::backward_joined(ctx, experts, joined, gradients);
  });
}
template <class T, execution_context Context, class Experts>
void lay_out_backward_rows(const Context& dry, const Experts& experts, const row_limits& in_blocks) {
  const typename Context::workspace_scope scope(dry.workspace());
  row_limits limits = in_blocks;
  limits.block = 0;
  const buffer<expert_rows<T>> joined(in_blocks.block == 0 ? 0 : limits.entries(experts.size()), &dry.workspace());
  const detail::remaining_rows<T> others(limits.entries(experts.size()), &dry.workspace());
  std::vector<std::size_t> scratch(experts.size(), 0);
  std::size_t by_tiles = 0;
  experts.for_each_bank([&](const auto& bank, vector_view<const std::size_t> ids) {
    if (experts::backward_runner(dry, bank) == runner::tiles) {
      for (const std::size_t e : ids)
        scratch[e] = experts.scratch_per_row(e);
      by_tiles += ids.size();
    } else {
      detail::lay_out_bank<T>(dry, bank, limits,
                              [&](const row_limits& own) { detail::lay_out_backward_bank(dry, bank, own); });
    }
  });
  const detail::backward_memory<T> memory(&dry.workspace(), std::min(by_tiles, limits.total),
                                          limits.most(experts.size(), [&](std::size_t e) { return scratch[e]; }));
}

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
