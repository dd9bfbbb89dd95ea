// SPDX-License-Identifier: MIT
// The two passes over the experts of a bank. T: float or double, S: the type of tensors.
#pragma once

#include <hmoe/execution/row_operations.hpp>

#include "batch_rows.hpp"
#include "context.hpp"
#include "group_bank.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

namespace hmoe::python {

/// Widened weights and their gradients are in memory for some experts at a time.
inline constexpr std::size_t bytes_of_group = std::size_t{16} << 20U;

/// Those experts that have rows; f(ids, first slot of each, first saved value of each) for groups of them. `copies`:
/// how often a group's weights are in memory in type T.
template <class T, std::size_t Lanes, class F>
void for_each_group(const bank_memory& bank, const plan& rows, std::size_t copies, const F& f) {
  std::vector<std::size_t> ids;
  std::size_t bytes = 0, saved = 0, saved_of_group = 0;
  const auto end_group = [&] {
    if (!ids.empty())
      f(std::span<const std::size_t>(ids), saved_of_group);
    ids.clear();
    bytes = 0;
    saved_of_group = saved;
  };
  for (std::size_t e = 0; e < bank.experts.size(); ++e) {
    if (rows.rows_of(e) == 0)
      continue;
    const std::size_t own = copies * (Lanes + 1) * bank.experts[e].width * bank.d_model * sizeof(T);
    if (bytes + own > bytes_of_group)
      end_group();
    bytes += own;
    saved += rows.rows_of(e) * (Lanes + 1) * bank.experts[e].width;
    ids.push_back(e);
  }
  end_group();
}

/// f(bank) of the experts `ids`.
template <class T, class S, std::size_t Lanes, class Context, class F>
void with_bank(const Context& ctx, const bank_memory& all, std::span<const std::size_t> ids, const F& f) {
  if constexpr (std::same_as<T, S>) {
    f(make_bank<T, Lanes>(all, experts::ffn_weights<T, Lanes>(tensors_in_place<T, Lanes>(all, ids))));
  } else {
    const copied_tensors<T, Lanes> copies(all, ids, &ctx.workspace());
    copies.template read<S>(ctx);
    f(make_bank<T, Lanes>(all, experts::ffn_weights<T, Lanes>(copies.tensors())));
  }
}
/// The same with a bank of gradients, some of which may be at no address: f(bank, gradients), which f writes.
template <class T, class S, std::size_t Lanes, class Context, class F>
void with_gradients(const Context& ctx, const bank_memory& all, const bank_memory& gradients,
                    std::span<const std::size_t> ids, const F& f) {
  with_bank<T, S, Lanes>(ctx, all, ids, [&](const auto& bank) {
    if constexpr (std::same_as<T, S>) {
      auto sums = make_bank<T, Lanes>(all, experts::ffn_weights<T, Lanes>(tensors_in_place<T, Lanes>(gradients, ids)));
      f(bank, sums);
    } else {
      const copied_tensors<T, Lanes> copies(gradients, ids, &ctx.workspace());
      auto sums = make_bank<T, Lanes>(all, experts::ffn_weights<T, Lanes>(copies.tensors()));
      f(bank, sums);
      copies.template write<S>(ctx);
    }
  });
}
/// Zeros in the gradients of experts without rows.
template <class S, std::size_t Lanes, class Context>
void clear_unused(const Context& ctx, const plan& rows, const bank_memory& gradients) {
  for (std::size_t e = 0; e < gradients.experts.size(); ++e)
    if (rows.rows_of(e) == 0)
      for_each_matrix<Lanes>(
          gradients, gradients.experts[e], [&](void* data, std::size_t count, std::size_t cols, std::size_t stride) {
            if (data != nullptr)
              hmoe::for_each_row(ctx, count,
                                 [&](std::size_t r) { std::fill_n(static_cast<S*>(data) + r * stride, cols, S(0)); });
          });
}
/// A bank of gradients without any.
[[nodiscard]] inline bank_memory without_tensors(bank_memory bank) {
  for (expert_memory& e : bank.experts) {
    e.lanes = e.lane_biases = {};
    e.output = e.output_bias = nullptr;
  }
  return bank;
}

/// Gradients of the weights of choices, ⟨dy, output⟩; 0 for ids that are skipped.
template <class T>
void write_weight_gradients(const pass_context& ctx, const backward_pass& pass, const batch_rows<T>& rows,
                            matrix_view<const T> dy) {
  if (pass.d_weights == nullptr)
    return;
  const std::size_t d = pass.bank->d_model, choices = pass.in.choices;
  hmoe::for_each_row(ctx, pass.in.tokens * choices, [&](std::size_t choice) {
    const index_t entry = rows.entry(choice);
    static_cast<T*>(pass.d_weights)[choice] =
        entry == no_index
            ? T(0)
            : rows::dot(ctx.backend(), dy.row(choice / choices),
                        vector_view<const T>(static_cast<const T*>(pass.outputs) + rows.plan().slots()[entry] * d, d));
  });
}

/// The rows of a group under the group's own numbers. complete(rows, first slot, its place in `saved`).
template <class T, std::size_t Lanes, class F>
[[nodiscard]] buffer<expert_rows<T>> group_rows(const bank_memory& bank, const batch_rows<T>& rows,
                                                std::span<const std::size_t> ids, std::size_t saved,
                                                std::pmr::memory_resource* memory, const F& complete) {
  buffer<expert_rows<T>> work(ids.size(), memory);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::size_t columns = (Lanes + 1) * bank.experts[ids[i]].width;
    work[i] = rows.rows_of(ids[i]);
    work[i].expert = i;
    complete(work[i], rows.plan().offsets()[ids[i]], saved, columns);
    saved += work[i].count * columns;
  }
  return work;
}

template <class T, class S, std::size_t Lanes> void run_forward(const forward_pass& pass) {
  const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
  const workspace::scope scope(ctx.workspace());
  std::pmr::memory_resource* const memory = &ctx.workspace();
  const bank_memory& bank = *pass.bank;
  const std::size_t d = bank.d_model, tokens = pass.in.tokens;
  const batch_rows<T> rows(pass.in, bank.experts.size(), memory);
  matrix<T> x_copy(memory), y_copy(memory);
  const matrix_view<const T> x = read_rows<T, S>(ctx, pass.in.x, tokens, d, x_copy);
  const matrix_view<T> y = zero_rows<T, S>(ctx, pass.y, tokens, d, y_copy);
  const std::size_t copies = std::same_as<T, S> ? 0 : 1;
  for_each_group<T, Lanes>(bank, rows.plan(), copies, [&](std::span<const std::size_t> ids, std::size_t saved) {
    const workspace::scope group(ctx.workspace());
    const auto work =
        group_rows<T, Lanes>(bank, rows, ids, saved, memory,
                             [&](expert_rows<T>& r, std::size_t slot, std::size_t place, std::size_t columns) {
                               r.x = x;
                               r.y = y;
                               if (pass.record) {
                                 r.saved = {static_cast<T*>(pass.saved) + place, r.count, columns};
                                 r.outputs = {static_cast<T*>(pass.outputs) + slot * d, r.count, d};
                               }
                             });
    with_bank<T, S, Lanes>(ctx, bank, ids,
                           [&](const auto& some) { ctx.backend().forward_bank(ctx, some, work.view()); });
  });
  write_rows<T, S>(ctx, y, pass.y);
}

template <class T, class S, std::size_t Lanes> void run_backward(const backward_pass& pass) {
  const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
  const workspace::scope scope(ctx.workspace());
  std::pmr::memory_resource* const memory = &ctx.workspace();
  const bank_memory& bank = *pass.bank;
  const std::size_t d = bank.d_model, tokens = pass.in.tokens;
  const batch_rows<T> rows(pass.in, bank.experts.size(), memory);
  matrix<T> x_copy(memory), dy_copy(memory), dx_copy(memory);
  const matrix_view<const T> x = read_rows<T, S>(ctx, pass.in.x, tokens, d, x_copy);
  const matrix_view<const T> dy = read_rows<T, S>(ctx, pass.dy, tokens, d, dy_copy);
  const matrix_view<T> dx = pass.dx == nullptr ? matrix_view<T>() : zero_rows<T, S>(ctx, pass.dx, tokens, d, dx_copy);
  write_weight_gradients(ctx, pass, rows, dy);
  const bank_memory gradients = pass.gradients == nullptr ? without_tensors(bank) : *pass.gradients;
  clear_unused<S, Lanes>(ctx, rows.plan(), gradients);
  const std::size_t copies = std::same_as<T, S> ? 0 : pass.gradients == nullptr ? 1 : 2;
  for_each_group<T, Lanes>(bank, rows.plan(), copies, [&](std::span<const std::size_t> ids, std::size_t saved) {
    const workspace::scope group(ctx.workspace());
    const auto work = group_rows<T, Lanes>(
        bank, rows, ids, saved, memory, [&](expert_rows<T>& r, std::size_t, std::size_t place, std::size_t columns) {
          r.x = x;
          r.dy = dy;
          r.dx = dx;
          // Read only: the member is what forward writes.
          r.saved = {const_cast<T*>(static_cast<const T*>(pass.saved)) + place, r.count, columns};
        });
    with_gradients<T, S, Lanes>(ctx, bank, gradients, ids, [&](const auto& some, auto& sums) {
      ctx.backend().backward_bank(ctx, some, work.view(), sums, backends::sums_from::zero);
    });
  });
  if (pass.dx != nullptr)
    write_rows<T, S>(ctx, dx, pass.dx);
}

} // namespace hmoe::python
