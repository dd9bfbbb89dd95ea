// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/backend.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

/// Everything that a backend may do, in one place: what the author of a backend reads from top to bottom.
///
/// Required, for float and double: the four matrix products of hmoe/core/products.hpp.
/// Optional: the operations below. Where a backend lacks one, the plain form runs, which is the definition (in the
/// headers named below). Where a backend has a function of that name, it must be callable as stated, const, for every T
/// (float and double) and every policy that it is asked for; a function that does not fit is a compile error and never
/// ignored. A backend that is fast for some policies only has an overload that calls the plain form for the others.
/// `testing::check_backend` compares all operations of a backend with the plain forms.
///
/// Rows (hmoe/execution/row_operations.hpp):
///   add_scaled(weight, from, to)            to += weight · from
///   copy_scaled(weight, from, to)           to = weight · from
///   weighted_sum(count, weight, row, to)    to = Σ_{i < count} weight(i) · row(i), i ascending; empty rows add nothing
///   dot(a, b)                               Σ a_i b_i
/// Hidden values of experts (hmoe/experts/elementwise.hpp):
///   activate<Activation>(z, a)              a = act(z)
///   activate_backward<Activation>(z, d)     d = d · act'(z)
///   gate(gate, g, u, a)                     a = gate(g, u)
///   gate_backward(gate, g, u, dg, du)       dg = ∂L/∂g and du = ∂L/∂u from du = ∂L/∂a
/// A token in the router (hmoe/routing/score_function.hpp, selection.hpp):
///   score(function, z, p)                   its probabilities p from its logits z
///   select(selection, p, chosen, scratch)   writes the chosen ids and returns how many; the experts of the plain form
/// Training (hmoe/training/adamw.hpp):
///   update_adamw(factors, count, value, gradient, m, v)   a step of AdamW for `count` values
/// Whole banks (hmoe/experts/run.hpp):
///   takes_bank(bank)                        whether it computes all experts of this bank at once: a bool, or
///                                           std::false_type for kinds of banks that it never takes
///   forward_bank(ctx, bank, rows)           y of each expert_rows; rows are contiguous, an expert may come several
///                                           times, and in any order
///   backward_bank(ctx, bank, rows, gradients)   dx =, gradients +=; experts ascend, and each comes once
///   gathers(bank)                           whether these two also take rows that scatter (hmoe/core/expert_rows.hpp);
///                                           may be missing: then rows are gathered for it
///   lay_out_forward_bank(dry, bank, limits)     takes from dry.workspace(), which only counts, what forward_bank takes
///                                           at most for rows within the row_limits; nothing of it may be touched
///   lay_out_backward_bank(dry, bank, limits)    what backward_bank takes
///
/// Rows are vector_view<const T> (read) and vector_view<T> (written); the outputs overlap no input except where one
/// argument is both.
namespace hmoe::operations {

namespace detail {
/// Whether B has a member of that name, whatever its form: the name becomes ambiguous in a class that inherits one
/// more. A final class cannot be asked in this way, so context refuses final backends.
#define HMOE_OPERATION(operation)                                                                                      \
  struct name_of_##operation {                                                                                         \
    void operation();                                                                                                  \
  };                                                                                                                   \
  template <class B> struct with_##operation : B, name_of_##operation {};                                              \
  template <class B>                                                                                                   \
  concept names_##operation = !requires { &with_##operation<B>::operation; };
HMOE_OPERATION(add_scaled)
HMOE_OPERATION(copy_scaled)
HMOE_OPERATION(weighted_sum)
HMOE_OPERATION(dot)
HMOE_OPERATION(activate)
HMOE_OPERATION(activate_backward)
HMOE_OPERATION(gate)
HMOE_OPERATION(gate_backward)
HMOE_OPERATION(score)
HMOE_OPERATION(select)
HMOE_OPERATION(update_adamw)
HMOE_OPERATION(takes_bank)
HMOE_OPERATION(forward_bank)
HMOE_OPERATION(backward_bank)
HMOE_OPERATION(gathers)
#undef HMOE_OPERATION

/// Stand for the callables of weighted_sum.
template <class T> struct any_weight {
  T operator()(std::size_t) const;
};
template <class T> struct any_row {
  vector_view<const T> operator()(std::size_t) const;
};
} // namespace detail

template <class B, class T>
concept has_add_scaled = requires(const B& math, T weight, vector_view<const T> from, vector_view<T> to) {
  { math.add_scaled(weight, from, to) } -> std::same_as<void>;
};
template <class B, class T>
concept has_copy_scaled = requires(const B& math, T weight, vector_view<const T> from, vector_view<T> to) {
  { math.copy_scaled(weight, from, to) } -> std::same_as<void>;
};
template <class B, class T>
concept has_weighted_sum = requires(const B& math, std::size_t count, detail::any_weight<T> weight,
                                    detail::any_row<T> row, vector_view<T> to) {
  { math.weighted_sum(count, weight, row, to) } -> std::same_as<void>;
};
template <class B, class T>
concept has_dot = requires(const B& math, vector_view<const T> a, vector_view<const T> b) {
  { math.dot(a, b) } -> std::same_as<T>;
};

template <class B, class T, class Activation>
concept has_activate = requires(const B& math, vector_view<const T> z, vector_view<T> a) {
  { math.template activate<Activation>(z, a) } -> std::same_as<void>;
};
template <class B, class T, class Activation>
concept has_activate_backward = requires(const B& math, vector_view<const T> z, vector_view<T> d) {
  { math.template activate_backward<Activation>(z, d) } -> std::same_as<void>;
};
template <class B, class T, class Gate>
concept has_gate = requires(const B& math, const Gate& gate, vector_view<const T> in, vector_view<T> a) {
  { math.gate(gate, in, in, a) } -> std::same_as<void>;
};
template <class B, class T, class Gate>
concept has_gate_backward = requires(const B& math, const Gate& gate, vector_view<const T> in, vector_view<T> d) {
  { math.gate_backward(gate, in, in, d, d) } -> std::same_as<void>;
};

template <class B, class T, class Function>
concept has_score = requires(const B& math, const Function& function, vector_view<const T> z, vector_view<T> p) {
  { math.score(function, z, p) } -> std::same_as<void>;
};
template <class B, class T, class Selection>
concept has_select = requires(const B& math, const Selection& selection, vector_view<const T> p,
                              vector_view<index_t> chosen, vector_view<T> scratch) {
  { math.select(selection, p, chosen, scratch) } -> std::convertible_to<std::size_t>;
};

template <class B, class T, class Factors>
concept has_update_adamw =
    requires(const B& math, const Factors& factors, std::size_t count, T* value, const T* gradient) {
      { math.update_adamw(factors, count, value, gradient, value, value) } -> std::same_as<void>;
    };

template <class B, class Bank>
concept has_takes_bank = requires(const B& math, const Bank& bank) {
  { math.takes_bank(bank) } -> std::convertible_to<bool>;
};
template <class B, class Bank>
concept never_takes_bank = requires(const B& math, const Bank& bank) {
  { math.takes_bank(bank) } -> std::same_as<std::false_type>;
};
template <class B, class Bank>
concept has_gathers = requires(const B& math, const Bank& bank) {
  { math.gathers(bank) } -> std::convertible_to<bool>;
};
template <class Context, class Bank>
concept has_bank_passes =
    requires(const Context& ctx, const Bank& bank, Bank& gradients,
             vector_view<const expert_rows<typename Bank::value_type>> rows, const row_limits& limits) {
      { ctx.backend().forward_bank(ctx, bank, rows) } -> std::same_as<void>;
      { ctx.backend().backward_bank(ctx, bank, rows, gradients) } -> std::same_as<void>;
      { ctx.backend().lay_out_forward_bank(ctx, bank, limits) } -> std::same_as<void>;
      { ctx.backend().lay_out_backward_bank(ctx, bank, limits) } -> std::same_as<void>;
    };

/// The questions that the library asks: true where backend B has the operation, false where it has no function of that
/// name. A compile error where it has one that does not fit.
template <class B, class T> [[nodiscard]] consteval bool add_scaled() {
  static_assert(has_add_scaled<B, T> || !detail::names_add_scaled<B>,
                "hmoe: the backend's add_scaled does not fit: expected is `void add_scaled(T weight, vector_view<const "
                "T> from, vector_view<T> to) const` for T float and double (hmoe/execution/operations.hpp)");
  return has_add_scaled<B, T>;
}
template <class B, class T> [[nodiscard]] consteval bool copy_scaled() {
  static_assert(has_copy_scaled<B, T> || !detail::names_copy_scaled<B>,
                "hmoe: the backend's copy_scaled does not fit: expected is `void copy_scaled(T weight, "
                "vector_view<const T> from, vector_view<T> to) const` for T float and double "
                "(hmoe/execution/operations.hpp)");
  return has_copy_scaled<B, T>;
}
template <class B, class T> [[nodiscard]] consteval bool weighted_sum() {
  static_assert(has_weighted_sum<B, T> || !detail::names_weighted_sum<B>,
                "hmoe: the backend's weighted_sum does not fit: expected is `template <class Weight, class Row> void "
                "weighted_sum(std::size_t count, const Weight& weight, const Row& row, vector_view<T> to) const` for T "
                "float and double (hmoe/execution/operations.hpp)");
  return has_weighted_sum<B, T>;
}
template <class B, class T> [[nodiscard]] consteval bool dot() {
  static_assert(has_dot<B, T> || !detail::names_dot<B>,
                "hmoe: the backend's dot does not fit: expected is `T dot(vector_view<const T> a, vector_view<const T> "
                "b) const` for T float and double (hmoe/execution/operations.hpp)");
  return has_dot<B, T>;
}
template <class B, class T, class Activation> [[nodiscard]] consteval bool activate() {
  static_assert(has_activate<B, T, Activation> || !detail::names_activate<B>,
                "hmoe: the backend's activate does not fit: expected is `template <activation Activation> void "
                "activate(vector_view<const T> z, vector_view<T> a) const` for T float and double and every activation "
                "(hmoe/execution/operations.hpp)");
  return has_activate<B, T, Activation>;
}
template <class B, class T, class Activation> [[nodiscard]] consteval bool activate_backward() {
  static_assert(has_activate_backward<B, T, Activation> || !detail::names_activate_backward<B>,
                "hmoe: the backend's activate_backward does not fit: expected is `template <activation Activation> "
                "void activate_backward(vector_view<const T> z, vector_view<T> d) const` for T float and double and "
                "every activation (hmoe/execution/operations.hpp)");
  return has_activate_backward<B, T, Activation>;
}
template <class B, class T, class Gate> [[nodiscard]] consteval bool gate() {
  static_assert(has_gate<B, T, Gate> || !detail::names_gate<B>,
                "hmoe: the backend's gate does not fit: expected is `template <gating Gate> void gate(const Gate& "
                "gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) const` for T float and double "
                "and every gate (hmoe/execution/operations.hpp)");
  return has_gate<B, T, Gate>;
}
template <class B, class T, class Gate> [[nodiscard]] consteval bool gate_backward() {
  static_assert(has_gate_backward<B, T, Gate> || !detail::names_gate_backward<B>,
                "hmoe: the backend's gate_backward does not fit: expected is `template <gating Gate> void "
                "gate_backward(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> dg, "
                "vector_view<T> du) const` for T float and double and every gate (hmoe/execution/operations.hpp)");
  return has_gate_backward<B, T, Gate>;
}
template <class B, class T, class Function> [[nodiscard]] consteval bool score() {
  static_assert(has_score<B, T, Function> || !detail::names_score<B>,
                "hmoe: the backend's score does not fit: expected is `template <class Function> void score(const "
                "Function& function, vector_view<const T> z, vector_view<T> p) const` for T float and double and every "
                "score function (hmoe/execution/operations.hpp)");
  return has_score<B, T, Function>;
}
template <class B, class T, class Selection> [[nodiscard]] consteval bool select() {
  static_assert(has_select<B, T, Selection> || !detail::names_select<B>,
                "hmoe: the backend's select does not fit: expected is `template <class Selection> std::size_t "
                "select(const Selection& selection, vector_view<const T> p, vector_view<index_t> chosen, "
                "vector_view<T> scratch) const` for T float and double and every selection "
                "(hmoe/execution/operations.hpp)");
  return has_select<B, T, Selection>;
}
template <class B, class T, class Factors> [[nodiscard]] consteval bool update_adamw() {
  static_assert(has_update_adamw<B, T, Factors> || !detail::names_update_adamw<B>,
                "hmoe: the backend's update_adamw does not fit: expected is `void update_adamw(const "
                "training::adamw_factors<T>& by, std::size_t count, T* value, const T* gradient, T* m, T* v) const` "
                "for T float and double (hmoe/execution/operations.hpp)");
  return has_update_adamw<B, T, Factors>;
}
/// Whether gathers(bank) can be asked.
template <class B, class Bank> [[nodiscard]] consteval bool gathers() {
  static_assert(has_gathers<B, Bank> || !detail::names_gathers<B>,
                "hmoe: the backend's gathers does not fit: expected is `template <class Bank> bool gathers(const Bank& "
                "bank) const` for every bank that it takes (hmoe/execution/operations.hpp)");
  return has_gathers<B, Bank>;
}
/// Whether the backend may take a bank of this kind; takes_bank(bank) then tells of a single one.
template <class Context, class Bank>
  requires backend<typename Context::backend_type>
[[nodiscard]] consteval bool bank_passes() {
  using B = typename Context::backend_type;
  constexpr bool named = detail::names_takes_bank<B>, takes = has_takes_bank<B, Bank>;
  static_assert(takes || !named,
                "hmoe: the backend's takes_bank does not fit: expected is `template <class Bank> bool takes_bank(const "
                "Bank& bank) const` for every bank (hmoe/execution/operations.hpp)");
  static_assert(named || !(detail::names_forward_bank<B> || detail::names_backward_bank<B>),
                "hmoe: the backend has forward_bank or backward_bank, but no `template <class Bank> bool "
                "takes_bank(const Bank& bank) const`, which says for which banks (hmoe/execution/operations.hpp)");
  if constexpr (takes && !never_takes_bank<B, Bank>) {
    static_assert(has_bank_passes<Context, Bank>,
                  "hmoe: the backend takes this kind of bank, but its forward_bank, backward_bank, "
                  "lay_out_forward_bank or lay_out_backward_bank is missing or does not fit: expected are `void "
                  "forward_bank(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> rows) const`, "
                  "`void backward_bank(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> rows, "
                  "Bank& gradients) const` and `void lay_out_forward_bank(const Context& dry, const Bank& bank, const "
                  "row_limits& limits) const`, backward alike; for kinds that it never takes, takes_bank returns "
                  "std::false_type (hmoe/execution/operations.hpp)");
    return has_bank_passes<Context, Bank>;
  } else {
    return false;
  }
}

} // namespace hmoe::operations

#include <hmoe/core/macros_on.hpp>
