// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// How an error on one rank reaches the others: as an hmoe::error, at a place that all ranks come to.
namespace hmoe::communicators {

/// The text of an exception.
[[nodiscard]] inline std::string text_of(const std::exception_ptr& error) {
#if defined(__cpp_exceptions)
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
#else
  static_cast<void>(error);
  return "";
#endif
}

namespace detail {
/// A text of a fixed size, which all ranks can gather without telling lengths.
struct failure_text {
  std::array<char, 480> text{};
  std::uint64_t failed = 0;
};
} // namespace detail

/// Collective, when all ranks know that some of them have failed: rethrows this rank's own exception where it has one,
/// else throws an hmoe::error "`who`: rank p has failed: …" with the reason of the first that has.
template <communicator Communicator>
[[noreturn]] void fail_together(const Communicator& ranks, const std::exception_ptr& own, std::string_view who) {
  detail::failure_text mine;
  if (own != nullptr) {
    mine.failed = 1;
    const std::string text = text_of(own);
    const std::string_view reason = text.starts_with("hmoe: ") ? std::string_view(text).substr(6) : text;
    std::copy_n(reason.begin(), std::min(reason.size(), mine.text.size() - 1), mine.text.begin());
  }
  std::vector<detail::failure_text> all(ranks.size());
  // Where this fails as well the own reason is what to tell.
  const std::exception_ptr unheard = exception_of([&] {
    ranks.template all_gather<detail::failure_text>(std::span<const detail::failure_text>(&mine, 1), std::span(all));
  });
  if (own != nullptr)
    std::rethrow_exception(own);
  if (unheard != nullptr)
    std::rethrow_exception(unheard);
  std::size_t first = 0;
  while (first + 1 < all.size() && all[first].failed == 0)
    ++first;
  fail(std::string(who) + ": rank " + std::to_string(first) + " has failed: " + all[first].text.data());
}

/// Collective: returns when no rank has an exception, else throws as fail_together does, on every rank. Returns the sum
/// of the ranks' numbers.
template <communicator Communicator>
std::uint64_t agree(const Communicator& ranks, const std::exception_ptr& own, std::string_view who,
                    std::uint64_t number = 0) {
  std::array<std::uint64_t, 2> sums{own != nullptr ? std::uint64_t{1} : std::uint64_t{0}, number};
  if (ranks.size() != 1)
    ranks.template all_reduce<std::uint64_t>(std::span(sums));
  else if (own != nullptr)
    std::rethrow_exception(own);
  if (sums[0] != 0)
    fail_together(ranks, own, who);
  return sums[1];
}

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
