// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/parameter.hpp>
#include <hmoe/core/type_identity.hpp>

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// Experts, routers and policies as texts, which differ where they compute differently with the same weights: what
/// ranks compare.
namespace hmoe::descriptions {

namespace detail {

template <class V>
concept number = std::is_arithmetic_v<V> || std::is_enum_v<V>;

/// " name = value"
template <number V> void append_number(std::string& text, std::string_view name, V value) {
  using whole = std::conditional_t<std::is_signed_v<V>, long long, unsigned long long>;
  using shown = std::conditional_t<std::is_floating_point_v<V>, V, whole>;
  char digits[32];
  char* end = std::to_chars(digits, digits + sizeof digits, static_cast<shown>(value)).ptr;
  text.append(" ").append(name).append(" = ").append(digits, end);
}

/// For requirements, where nvcc takes no lambda.
struct ignore_number {
  template <number V> void operator()(std::string_view, V) const noexcept {}
};

/// What the policy tells of itself, then the same of the one inside it, or of its function.
template <class Policy> void append_policy(std::string& text, const Policy& policy) {
  constexpr bool has_numbers = requires { policy.visit_numbers(ignore_number{}); };
  constexpr bool has_identity = requires { std::string(policy.identity()); };
  constexpr bool names_numbers = requires(Policy& own) { own.visit_numbers(ignore_number{}); };
  constexpr bool names_identity = requires(Policy& own) { own.identity(); };
  static_assert(has_numbers || !names_numbers, "hmoe: visit_numbers of a policy is not const: write template <class "
                                               "Visitor> void visit_numbers(Visitor&& visit) const");
  static_assert(has_identity || !names_identity,
                "hmoe: identity of a policy is not const, or returns no text: write std::string identity() const");
  if constexpr (has_numbers)
    policy.visit_numbers([&text](std::string_view name, auto value) { append_number(text, name, value); });
  if constexpr (has_identity)
    text.append(" ").append(std::string(policy.identity()));
  if constexpr (requires { policy.inner(); })
    append_policy(text, policy.inner());
  else if constexpr (requires { policy.inner; })
    append_policy(text, policy.inner);
  else if constexpr (requires { policy.function(); })
    append_policy(text, policy.function());
  else if constexpr (requires { policy.function; })
    append_policy(text, policy.function);
}

struct ignore_bank {
  template <class Bank, class Ids> void operator()(const Bank&, const Ids&) const noexcept {}
};

/// Of each expert: its bank, the kind that an any_expert holds, the names of its tensors.
template <class Experts> [[nodiscard]] std::vector<std::string> each_of(const Experts& experts) {
  std::vector<std::string> each(experts.size());
  if constexpr (requires { experts.bank_index(std::size_t{}); })
    for (std::size_t e = 0; e < each.size(); ++e)
      each[e] = "bank " + std::to_string(experts.bank_index(e));
  if constexpr (requires { experts.for_each_bank(ignore_bank{}); })
    experts.for_each_bank([&](const auto& bank, auto ids) {
      if constexpr (requires { std::string(bank[0].identity()); })
        for (std::size_t i = 0; i < ids.size(); ++i)
          each[ids[i]].append(" ").append(std::string(bank[i].identity()));
    });
  if constexpr (requires { requires Experts::trainable; })
    hmoe::detail::visit_part(experts, [&](const parameter_info& info, const auto&) {
      if (info.expert < each.size())
        each[info.expert].append(" ").append(info.name).append(info.trained ? "" : " (fixed)");
    });
  return each;
}

} // namespace detail

/// The type of a policy and its numbers: "hmoe::routing::top_k<> k = 2". A policy tells each number that changes what
/// it computes by visit_numbers(visit), const, which calls visit(name, value), and anything else by a text, identity().
template <class Policy> [[nodiscard]] std::string describe(const Policy& policy) {
  std::string text(hmoe::detail::type_name<Policy>());
  detail::append_policy(text, policy);
  return text;
}

/// Of a router: also what its parts show, and its sizes.
template <class Router> [[nodiscard]] std::string describe_router(const Router& router) {
  std::string text = descriptions::describe(router);
  for (const auto& [name, value] : {std::pair<const char*, std::size_t>{"d_model", router.d_model()},
                                    {"routed", router.routed()},
                                    {"size", router.size()},
                                    {"max_selected", router.max_selected()},
                                    {"saved", router.saved_per_token()}})
    detail::append_number(text, name, value);
  if constexpr (requires { router.on_non_finite(); })
    detail::append_number(text, "non_finite", router.on_non_finite());
  if constexpr (requires { router.score(); })
    detail::append_policy(text.append("; score"), router.score());
  if constexpr (requires { router.selection_policy(); })
    detail::append_policy(text.append("; selection"), router.selection_policy());
  if constexpr (requires { router.weighting_policy(); })
    detail::append_policy(text.append("; weighting"), router.weighting_policy());
  if constexpr (requires { router.shared_policy(); })
    detail::append_policy(text.append("; shared"), router.shared_policy());
  return text;
}

/// Of the experts of a layer: their type, the numbers of gates, and of each expert its bank, its kind and the names of
/// its tensors, biases among them. Not widths: a rank may have those of its own experts only. Neighbours of the same
/// kind come once: "… experts = 4; 0 to 2: bank 0 up down; 3: bank 1 gate up down". An expert of your own adds a text
/// by a function identity().
template <class Experts> [[nodiscard]] std::string describe_experts(const Experts& experts) {
  std::string text(hmoe::detail::type_name<Experts>());
  detail::append_number(text, "d_model", experts.d_model());
  detail::append_number(text, "experts", experts.size());
  if constexpr (requires { experts.for_each_bank(detail::ignore_bank{}); })
    experts.for_each_bank([&](const auto& bank, auto) {
      if constexpr (requires { bank.gate_function(); })
        detail::append_policy(text.append("; gate"), bank.gate_function());
      if constexpr (requires { std::string(bank.identity()); })
        text.append("; ").append(std::string(bank.identity()));
    });
  const std::vector<std::string> each = detail::each_of(experts);
  for (std::size_t first = 0, end = 0; first < each.size(); first = end) {
    while (end < each.size() && each[end] == each[first])
      ++end;
    text.append("; ").append(std::to_string(first));
    if (end - first > 1)
      text.append(" to ").append(std::to_string(end - 1));
    text.append(": ").append(each[first]);
  }
  return text;
}

} // namespace hmoe::descriptions

#include <hmoe/core/macros_on.hpp>
