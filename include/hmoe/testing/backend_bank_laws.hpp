// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/testing/backend_report.hpp>
#include <hmoe/testing/probes.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::testing::detail {

/// The part of check_backend that runs whole banks of a size that a backend may find worth while, by whoever computes
/// them.
template <class T, class Backend> class backend_bank_check {
public:
  backend_bank_check(const Backend& math, const backend_options& options, backend_report& found)
      : math_(math), options_(options), found_(found) {}

  void run() {
    check_bank(experts::glu_bank<T, experts::silu>(256, {130, 1, 260}, experts::biases::all));
    check_bank(experts::mlp_bank<T, experts::relu>(256, {130, 200}, experts::biases::none));
  }

private:
  using values = std::vector<T>;
  static constexpr double epsilon = std::numeric_limits<T>::epsilon();

  template <class Bank> void check_bank(Bank bank) {
    bank.initialize(seed{77}, 0, {});
    const std::size_t d = bank.d_model();
    workspace memory;
    const context ours{math_, executors::serial{}, memory};
    const context plain{backends::reference{}};
    expert_set set{std::move(bank)};
    // `block`: the rows of an entry, where an expert's come as several.
    const auto pass = [&](const auto& ctx, std::size_t block) {
      std::vector<guarded_matrix<T>> x, dy, y, dx, saved;
      std::vector<expert_rows<T>> work;
      for (std::size_t e = 0; e < set.size(); ++e) {
        const std::size_t count = 2 * e + 3;
        x.emplace_back(count, d, random_values<T>(count * d, 100 + e));
        dy.emplace_back(count, d, random_values<T>(count * d, 200 + e));
        y.emplace_back(count, d);
        dx.emplace_back(count, d);
        saved.emplace_back(count, set.saved_per_row(e));
      }
      for (std::size_t e = 0; e < set.size(); ++e)
        work.push_back({.expert = e,
                        .count = 2 * e + 3,
                        .x = x[e].view(),
                        .y = y[e].view(),
                        .saved = saved[e].view(),
                        .dy = dy[e].view(),
                        .dx = dx[e].view()});
      std::vector<expert_rows<T>> cut;
      for (const expert_rows<T>& rows : work)
        for (std::size_t first = 0; first < rows.count; first += block)
          cut.push_back(rows.part(first, std::min(block, rows.count - first)));
      auto gradients = set;
      hmoe::set_zero(gradients);
      const std::vector<expert_rows<T>> descending(cut.rbegin(), cut.rend()); // forward they may come in any order
      set.forward_rows(ctx, vector_view<const expert_rows<T>>(block < 100 ? descending : cut));
      set.backward_rows(ctx, vector_view<const expert_rows<T>>(cut), gradients);
      std::vector<values> all;
      for (std::size_t e = 0; e < set.size(); ++e) {
        found_.expect(y[e].margins_intact() && dx[e].margins_intact() && saved[e].margins_intact(),
                      "passes over banks write their outputs only", "expert ", e);
        all.push_back(y[e].values());
        all.push_back(dx[e].values());
      }
      gradients.visit_parameters([&](const parameter_info&, matrix_view<T> view) {
        all.emplace_back(view.data(), view.data() + view.size());
      });
      return all;
    };
    check_scattering(set);
    const auto got = pass(ours, 100), expected = pass(plain, 100), in_blocks = pass(ours, 2);
    found_.expect(!options_.same_bits_in_any_batch || got == in_blocks,
                  "rows of an expert may come in blocks: the same bits", "they differ from those of whole experts");
    row_limits limits;
    for (std::size_t e = 0; e < set.size(); ++e) {
      limits.each = 2 * e + 3;
      limits.total += limits.each;
    }
    limits.block = 2;
    const dry_context dry(ours);
    set.lay_out_forward_rows(dry, limits);
    set.lay_out_backward_rows(dry, limits);
    found_.expect(memory.peak() <= dry.workspace().peak(),
                  "lay_out_forward_bank and lay_out_backward_bank announce enough", "passes over ", limits.total,
                  " rows took ", memory.peak(), " bytes of workspace, announced are ", dry.workspace().peak());
    for (const auto* tensors : {&got, &in_blocks})
      for (std::size_t i = 0; i < expected.size(); ++i) {
        double largest = 0;
        for (const T value : expected[i])
          largest = std::max(largest, std::abs(static_cast<double>(value)));
        for (std::size_t j = 0; j < expected[i].size(); ++j)
          found_.expect(std::abs(static_cast<double>((*tensors)[i][j]) - static_cast<double>(expected[i][j])) <=
                            1000 * epsilon * std::max(1.0, largest),
                        "passes over banks agree with the reference", "tensor ", i, ", value ", j, ": got ",
                        (*tensors)[i][j], ", expected ", expected[i][j]);
      }
  }

  /// Rows that are read where tokens are and added to them, against contiguous rows of the same backend: row i of every
  /// expert is token i.
  template <class Set> void check_scattering(const Set& set) {
    workspace memory;
    const context ctx{math_, executors::serial{}, memory};
    if (!set.gathers_rows(ctx))
      return;
    const std::size_t d = set.d_model(), tokens = 2 * set.size() + 1;
    const values x = random_values<T>(tokens * d, 300), dy = random_values<T>(tokens * d, 301);
    const matrix_view<const T> x_rows(x.data(), tokens, d), d_in(dy.data(), tokens, d);
    std::vector<index_t> ids(tokens), entries;
    for (std::size_t t = 0; t < tokens; ++t)
      ids[t] = static_cast<index_t>(t);
    row_limits limits;
    for (std::size_t e = 0; e < set.size(); ++e) {
      limits.each = 2 * e + 3;
      limits.total += limits.each;
    }
    for (std::size_t a = 0; a < limits.total; ++a)
      entries.push_back(static_cast<index_t>(a));
    const values weights = random_values<T>(limits.total, 302);
    const auto pass = [&](bool scatters) {
      guarded_matrix<T> y(tokens, d), inferred(tokens, d), dx(tokens, d);
      std::vector<guarded_matrix<T>> y_rows, saved, d_out, d_rows;
      std::vector<expert_rows<T>> training, inference, backward;
      for (matrix_view<T> to : {y.view(), inferred.view(), dx.view()})
        for (std::size_t t = 0; t < tokens; ++t)
          std::fill(to.row(t).begin(), to.row(t).end(), T(0));
      for (std::size_t e = 0; e < set.size(); ++e) {
        y_rows.emplace_back(2 * e + 3, d);
        d_out.emplace_back(2 * e + 3, d);
        d_rows.emplace_back(2 * e + 3, d);
        saved.emplace_back(2 * e + 3, set.saved_per_row(e));
      }
      const auto weight = [&](std::size_t first, std::size_t i) { return weights[first + i]; };
      for (std::size_t e = 0, first = 0; e < set.size(); first += 2 * e++ + 3) {
        const std::size_t count = 2 * e + 3;
        expert_rows<T> rows = expert_rows<T>::forward(e, x_rows.row_block(0, count), y_rows[e].view(), saved[e].view());
        if (scatters) {
          rows.x = x_rows;
          rows.y = y.view();
          rows.outputs = y_rows[e].view();
          rows.tokens = vector_view<const index_t>(ids.data(), count);
          rows.entries = vector_view<const index_t>(entries.data() + first, count);
          rows.weights = vector_view<const T>(weights.data(), weights.size());
        }
        training.push_back(rows);
        rows.y = inferred.view();
        rows.saved = {};
        rows.outputs = {};
        inference.push_back(rows);
        for (std::size_t i = 0; i < count; ++i)
          rows::copy_scaled(math_, weight(first, i), d_in.row(i), d_out[e].view().row(i));
        rows = training.back();
        rows.dy = scatters ? d_in : matrix_view<const T>(d_out[e].view());
        rows.dx = scatters ? dx.view() : d_rows[e].view();
        backward.push_back(rows);
      }
      Set gradients = set;
      hmoe::set_zero(gradients);
      set.forward_rows(ctx, vector_view<const expert_rows<T>>(training));
      if (scatters)
        set.forward_rows(ctx, vector_view<const expert_rows<T>>(inference));
      set.backward_rows(ctx, vector_view<const expert_rows<T>>(backward), gradients);
      for (std::size_t e = 0, first = 0; !scatters && e < set.size(); first += 2 * e++ + 3)
        for (std::size_t i = 0; i < 2 * e + 3; ++i) {
          const vector_view<const T> result = y_rows[e].view().row(i), d_row = d_rows[e].view().row(i);
          rows::add_scaled(math_, weight(first, i), result, y.view().row(i));
          rows::add_scaled(math_, weight(first, i), result, inferred.view().row(i));
          rows::add_scaled(math_, T(1), d_row, dx.view().row(i));
        }
      values all;
      const auto append = [&](const values& more) { all.insert(all.end(), more.begin(), more.end()); };
      for (const auto* m : {&y, &inferred, &dx}) {
        append(m->values());
        found_.expect(m->margins_intact(), "rows that scatter: only tokens are written", "memory beside them changed");
      }
      for (std::size_t e = 0; e < set.size(); ++e) {
        append(y_rows[e].values());
        append(saved[e].values());
      }
      gradients.visit_parameters(
          [&](const parameter_info&, matrix_view<T> view) { append(values(view.data(), view.data() + view.size())); });
      return all;
    };
    const values got = pass(true);
    const std::size_t peak = memory.peak();
    const values expected = pass(false);
    bool near = true;
    for (std::size_t i = 0; i < got.size(); ++i)
      near = near && std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])) <=
                         1000 * epsilon * std::max(1.0, std::abs(static_cast<double>(expected[i])));
    found_.expect(options_.same_bits_in_any_batch ? got == expected : near,
                  "rows that scatter give what contiguous rows give",
                  "y, dx, outputs, saved values or gradients differ");
    const dry_context dry(ctx);
    set.lay_out_forward_rows(dry, limits, true);
    limits.scatters = true;
    set.lay_out_backward_rows(dry, limits);
    found_.expect(peak <= dry.workspace().peak(), "lay_out_forward_bank and lay_out_backward_bank announce enough",
                  "rows that scatter took ", peak, " bytes of workspace, announced are ", dry.workspace().peak());
  }

  const Backend& math_;
  const backend_options& options_;
  backend_report& found_;
};

} // namespace hmoe::testing::detail

#include <hmoe/core/macros_on.hpp>
