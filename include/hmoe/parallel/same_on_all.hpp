// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/checksum.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/type_identity.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// Whether ranks that work on one layer were made alike, and in what they differ.
namespace hmoe::communicators {

/// Something of a rank as a text, which must be the same on all ranks.
struct described {
  std::string_view what; ///< "the router"
  std::string text;
};

/// Collective: hmoe::error on every rank, with both texts, where one of the texts differs between ranks. All ranks give
/// as many.
template <communicator Communicator>
void require_same(const Communicator& ranks, std::span<const described> own, std::string_view who) {
  if (ranks.size() == 1)
    return;
  const std::size_t count = own.size();
  std::vector<std::uint64_t> sums(count), all(count * ranks.size());
  for (std::size_t i = 0; i < count; ++i) {
    checksum sum;
    sum.add(std::as_bytes(std::span(own[i].text)));
    sums[i] = sum.value();
  }
  ranks.template all_gather<std::uint64_t>(sums, std::span(all));
  std::size_t item = count, rank = 0; // the same on all ranks
  for (std::size_t i = 0; i < count && item == count; ++i)
    for (std::size_t p = 1; p < ranks.size() && item == count; ++p)
      if (all[p * count + i] != all[i]) {
        item = i;
        rank = p;
      }
  if (item == count)
    return;
  // Only now do texts travel.
  const std::string& text = own[item].text;
  const std::vector<std::uint64_t> length{text.size()};
  std::vector<std::uint64_t> lengths(ranks.size());
  ranks.template all_gather<std::uint64_t>(length, std::span(lengths));
  const std::vector<std::size_t> sent(ranks.size(), text.size()), received(lengths.begin(), lengths.end());
  std::string out, in;
  for (std::size_t p = 0; p < ranks.size(); ++p) {
    out += text;
    in.append(received[p], ' ');
  }
  ranks.template all_to_all<char>(std::span<const char>(out), sent, std::span(in), received);
  std::size_t begin = 0;
  for (std::size_t p = 0; p < rank; ++p)
    begin += received[p];
  fail(std::string(who) + ": ranks differ in " + std::string(own[item].what) + ": rank 0 has " +
       in.substr(0, received[0]) + ", rank " + std::to_string(rank) + " has " + in.substr(begin, received[rank]));
}

namespace detail {

/// " name = value" for what a policy shows under this name, as a member or as a function.
inline void append_number(std::string& text, std::string_view name, double value) {
  char digits[32];
  text.append(" ").append(name).append(" = ");
  text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}
template <class V>
concept number = std::is_arithmetic_v<V> || std::is_enum_v<V>;

template <class Policy> void append_policy(std::string& text, const Policy& policy) {
  const auto add = [&text](std::string_view name, const auto& value) {
    if constexpr (number<std::remove_cvref_t<decltype(value)>>)
      append_number(text, name, static_cast<double>(value));
  };
  if constexpr (requires { policy.k(); })
    add("k", policy.k());
  else if constexpr (requires { policy.k; })
    add("k", policy.k);
  if constexpr (requires { policy.rows(); })
    add("rows", policy.rows());
  if constexpr (requires { policy.p; })
    add("p", policy.p);
  if constexpr (requires { policy.minimum; })
    add("minimum", policy.minimum);
  if constexpr (requires { policy.budget; })
    add("budget", policy.budget);
  if constexpr (requires { policy.limit; })
    add("limit", policy.limit);
  if constexpr (requires { policy.most; })
    add("most", policy.most);
  if constexpr (requires { policy.groups; })
    add("groups", policy.groups);
  if constexpr (requires { policy.kept; })
    add("kept", policy.kept);
  if constexpr (requires { policy.count; })
    add("count", policy.count);
  if constexpr (requires { policy.order; })
    add("order", policy.order);
  if constexpr (requires { policy.factor; })
    add("factor", policy.factor);
  if constexpr (requires { policy.epsilon(); })
    add("epsilon", policy.epsilon());
  else if constexpr (requires { policy.epsilon; })
    add("epsilon", policy.epsilon);
  if constexpr (requires { policy.iterations; })
    add("iterations", policy.iterations);
  if constexpr (requires { policy.tolerance; })
    add("tolerance", policy.tolerance);
  if constexpr (requires { std::string(policy.identity()); })
    text.append(" ").append(std::string(policy.identity()));
  if constexpr (requires { policy.inner(); })
    append_policy(text, policy.inner());
  else if constexpr (requires { policy.inner; })
    append_policy(text, policy.inner);
}

} // namespace detail

/// The type of a policy and its numbers: "hmoe::routing::top_k<> k = 2". Numbers are those that the library's policies
/// show; one of your own adds a text by a function identity().
template <class Policy> [[nodiscard]] std::string describe(const Policy& policy) {
  std::string text(hmoe::detail::type_name<Policy>());
  detail::append_policy(text, policy);
  return text;
}

/// Of a router: also what its parts show, and its sizes.
template <class Router> [[nodiscard]] std::string describe_router(const Router& router) {
  std::string text = communicators::describe(router);
  for (const auto& [name, value] : {std::pair<const char*, std::size_t>{"d_model", router.d_model()},
                                    {"routed", router.routed()},
                                    {"size", router.size()},
                                    {"max_selected", router.max_selected()},
                                    {"saved", router.saved_per_token()}})
    detail::append_number(text, name, static_cast<double>(value));
  if constexpr (requires { router.on_non_finite(); })
    detail::append_number(text, "non_finite", static_cast<double>(router.on_non_finite()));
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

} // namespace hmoe::communicators
