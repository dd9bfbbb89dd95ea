// SPDX-License-Identifier: MIT
// Experts that have no neurons: zero, identity and constant, on tensors of the caller.
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/zero.hpp>

#include "kernels/batch_rows.hpp"
#include "passes.hpp"

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::python {

enum class simple_kind { zero, identity, constant };

/// An expert of such a kind; of constants, where their tensors are or the gradients of them go (null: not wanted).
struct simple_expert {
  simple_kind kind = simple_kind::zero;
  void *mix = nullptr, *constant = nullptr; ///< [2 × d] and [d]
};

namespace simple_detail {

/// f(bank, gradients) of the one expert.
template <class T, class F> void with_bank(const simple_expert& e, std::size_t d, const F& f) {
  if (e.kind == simple_kind::zero) {
    experts::zero_bank<T> bank(d), gradients = bank;
    return f(bank, gradients);
  }
  if (e.kind == simple_kind::identity) {
    experts::identity_bank<T> bank(d), gradients = bank;
    return f(bank, gradients);
  }
  experts::constant_bank<T> bank(d), gradients = bank;
  std::copy_n(static_cast<const T*>(e.mix), 2 * d, bank.mix(0).data());
  std::copy_n(static_cast<const T*>(e.constant), d, bank.constant(0).data());
  f(bank, gradients);
}
/// The tokens of an expert's rows, and what forward makes of them.
template <class T> struct gathered {
  expert_rows<T> rows;
  matrix<T> x, out, saved;

  template <class Bank> gathered(const Bank& bank, const expert_rows<T>& all, matrix_view<const T> tokens) : rows(all) {
    x = matrix<T>(rows.count, bank.d_model());
    out = matrix<T>(rows.count, bank.d_model());
    saved = matrix<T>(rows.count, bank.saved_per_row(0));
    for (std::size_t r = 0; r < rows.count; ++r)
      std::ranges::copy(tokens.row(rows.tokens[r]), x.row(r).begin());
    bank.forward(backends::reference{}, 0, x.view(), out.view(), saved.view());
  }
  [[nodiscard]] T weight(std::size_t r) const noexcept { return rows.output_weight(r); }
};

} // namespace simple_detail

/// y_t = Σ_i weights(t, i) · expert_{ids(t, i)}(x_t), in ascending order of experts: of T, as x and weights are.
template <class T>
void run_simple_experts(const std::vector<simple_expert>& all, const batch& in, std::size_t d, T* to) {
  const batch_rows<T> rows(in, all.size(), std::pmr::get_default_resource());
  const matrix_view<const T> x(static_cast<const T*>(in.x), in.tokens, d);
  const matrix_view<T> y(to, in.tokens, d);
  std::fill_n(to, y.size(), T(0));
  for (std::size_t e = 0; e < all.size(); ++e)
    if (all[e].kind != simple_kind::zero && rows.plan().rows_of(e) != 0)
      simple_detail::with_bank<T>(all[e], d, [&](const auto& bank, const auto&) {
        const simple_detail::gathered<T> own(bank, rows.rows_of(e), x);
        for (std::size_t r = 0; r < own.rows.count; ++r)
          for (std::size_t c = 0; c < d; ++c)
            y(own.rows.tokens[r], c) += own.weight(r) * own.out(r, c);
      });
}

/// dx [tokens × d] and d_weights [tokens × choices] are written, and the tensors of `gradients`.
template <class T>
void run_simple_experts_backward(const std::vector<simple_expert>& all, const batch& in, std::size_t d,
                                 const T* given_dy, T* to_x, T* to_weights,
                                 const std::vector<simple_expert>& gradients) {
  const batch_rows<T> rows(in, all.size(), std::pmr::get_default_resource());
  const matrix_view<const T> x(static_cast<const T*>(in.x), in.tokens, d), dy(given_dy, in.tokens, d);
  const matrix_view<T> dx(to_x, in.tokens, d);
  std::fill_n(to_x, dx.size(), T(0));
  std::vector<T> of_entries(rows.assigned().size(), T(0));
  for (std::size_t e = 0; e < all.size(); ++e)
    simple_detail::with_bank<T>(all[e], d, [&](const auto& bank, auto sums) {
      if (rows.plan().rows_of(e) != 0) {
        const simple_detail::gathered<T> own(bank, rows.rows_of(e), x);
        matrix<T> d_out(own.rows.count, d), d_rows(own.rows.count, d);
        for (std::size_t r = 0; r < own.rows.count; ++r) {
          const vector_view<const T> given = dy.row(own.rows.tokens[r]);
          double dot = 0;
          for (std::size_t c = 0; c < d; ++c) {
            dot += static_cast<double>(given[c]) * static_cast<double>(own.out(r, c));
            d_out(r, c) = own.weight(r) * given[c];
          }
          of_entries[own.rows.entries[r]] = static_cast<T>(dot);
        }
        bank.backward(backends::reference{}, 0, own.x.view(), own.saved.view(), d_out.view(), d_rows.view(), {}, sums);
        for (std::size_t r = 0; r < own.rows.count; ++r)
          for (std::size_t c = 0; c < d; ++c)
            dx(own.rows.tokens[r], c) += d_rows(r, c);
      }
      if constexpr (requires { sums.mix(0); }) {
        const auto give = [](const T* from, std::size_t count, void* to) {
          if (to != nullptr)
            std::copy_n(from, count, static_cast<T*>(to));
        };
        give(sums.mix(0).data(), 2 * d, gradients[e].mix);
        give(sums.constant(0).data(), d, gradients[e].constant);
      }
    });
  for (std::size_t choice = 0; choice < in.tokens * in.choices; ++choice)
    to_weights[choice] = rows.entry(choice) == no_index ? T(0) : of_entries[rows.entry(choice)];
}

} // namespace hmoe::python
