// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace hmoe::backends::simd_detail {

template <class T, class Gate> experts::glu_bank<T, Gate> feed_forward_base(const experts::glu_bank<T, Gate>&);
template <class T, class Activation>
experts::mlp_bank<T, Activation> feed_forward_base(const experts::mlp_bank<T, Activation>&);

/// A glu_bank or an mlp_bank, or a class derived from one; feed_forward_t is that bank.
template <class Bank>
concept has_feed_forward_base = requires(const Bank& bank) { simd_detail::feed_forward_base(bank); };
template <has_feed_forward_base Bank>
using feed_forward_t = decltype(simd_detail::feed_forward_base(std::declval<const Bank&>()));

/// Such a bank that computes what its base computes. One that declares forward or backward anew does not: the type of
/// a pointer to a member names the class that declares it.
template <class Bank>
concept feed_forward = has_feed_forward_base<Bank> && requires {
  requires std::same_as<decltype(&Bank::template forward<hmoe::detail::any_products>),
                        decltype(&feed_forward_t<Bank>::template forward<hmoe::detail::any_products>)>;
  requires std::same_as<decltype(&Bank::template backward<hmoe::detail::any_products>),
                        decltype(&feed_forward_t<Bank>::template backward<hmoe::detail::any_products>)>;
};

/// What is particular to a bank of feed-forward experts between its projections, for the hidden values [j, j + count)
/// of a row of width h. The row of saved values is the bank's own; its gradient has one value for each row of the first
/// matrix, and that of the activated values comes where the last lane's will be.
template <class Bank> struct ffn_kind;

template <class T, class Gate> struct ffn_kind<experts::glu_bank<T, Gate>> {
  static constexpr std::size_t lanes = 2;
  using bank = experts::glu_bank<T, Gate>;

  template <class Math>
  static void activate(const Math& math, const bank& experts, vector_view<T> saved, std::size_t h, std::size_t j,
                       std::size_t count) {
    const vector_view<const T> values = saved;
    experts::apply_gate(math, experts.gate_function(), values.subview(j, count), values.subview(h + j, count),
                        saved.subview(2 * h + j, count));
  }
  template <class Math>
  static void activate_backward(const Math& math, const bank& experts, vector_view<const T> saved, vector_view<T> d,
                                std::size_t h, std::size_t j, std::size_t count) {
    experts::apply_gate_backward(math, experts.gate_function(), saved.subview(j, count), saved.subview(h + j, count),
                                 d.subview(j, count), d.subview(h + j, count));
  }
};

template <class T, class Activation> struct ffn_kind<experts::mlp_bank<T, Activation>> {
  static constexpr std::size_t lanes = 1;
  using bank = experts::mlp_bank<T, Activation>;

  template <class Math>
  static void activate(const Math& math, const bank&, vector_view<T> saved, std::size_t h, std::size_t j,
                       std::size_t count) {
    const vector_view<const T> values = saved;
    experts::activate<Activation>(math, values.subview(j, count), saved.subview(h + j, count));
  }
  template <class Math>
  static void activate_backward(const Math& math, const bank&, vector_view<const T> saved, vector_view<T> d,
                                std::size_t, std::size_t j, std::size_t count) {
    experts::activate_backward<Activation>(math, saved.subview(j, count), d.subview(j, count));
  }
};

/// From which sizes on the passes over whole banks are taken. A packed value is used once for each column of the
/// product: copying it takes about a cycle, using it one for every two registers of columns. With 1024 tokens on a Zen
/// 3, forward and backward take 0.70 to 0.87 of the time with it at d 768 and widths of 864 to 2208, and 1.10 at d 64
/// and widths of 72 to 184. In between the threshold follows from the first sentence and is not measured.
struct packing_threshold {
  std::size_t d_model, mean_width;
};
inline constexpr packing_threshold default_packing_threshold{256, 128};

template <class Bank> [[nodiscard]] bool worth_packing(const Bank& bank) noexcept {
  std::size_t widths = 0;
  for (std::size_t e = 0; e < bank.size(); ++e)
    widths += bank.width(e);
  return bank.d_model() >= default_packing_threshold.d_model &&
         widths >= default_packing_threshold.mean_width * bank.size();
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
