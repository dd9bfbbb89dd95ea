// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <charconv>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace hmoe {

/// What every check of the library throws: the message carries the numbers that were wrong, `where()` the place of
/// the check. Thrown before any output is written.
class error : public std::runtime_error {
public:
  explicit error(const std::string& message, std::source_location where = std::source_location::current())
      : std::runtime_error("hmoe: " + message), where_(where) {}

  [[nodiscard]] const std::source_location& where() const noexcept { return where_; }

private:
  std::source_location where_;
};

/// Called in place of a throw by programs compiled with -fno-exceptions, with the text of the error and the place of
/// the check. It must not return: when it does, the program is aborted.
using error_handler = void (*)(const char* message, const std::source_location& where);

namespace detail {
inline void print_error(const char* message, const std::source_location& where) {
  std::fprintf(stderr, "%s:%u: %s\n", where.file_name(), static_cast<unsigned>(where.line()), message);
}
inline error_handler handler = print_error;

/// A number or a text, as part of a message. Not a template, so that a failed check costs its caller little code; few
/// of its constructors are, since a program has hundreds of checks, with literals of as many types.
class message_part {
public:
  message_part(int value) noexcept : kind_(kind::integer), integer_(value) {}
  message_part(long value) noexcept : kind_(kind::integer), integer_(value) {}
  message_part(long long value) noexcept : kind_(kind::integer), integer_(value) {}
  message_part(unsigned value) noexcept : kind_(kind::natural), natural_(value) {}
  message_part(unsigned long value) noexcept : kind_(kind::natural), natural_(value) {}
  message_part(unsigned long long value) noexcept : kind_(kind::natural), natural_(value) {}
  message_part(char value) noexcept : kind_(kind::letter), letter_(value) {}
  message_part(float value) noexcept : kind_(kind::single), single_(value) {}
  message_part(double value) noexcept : kind_(kind::real), real_(value) {}
  message_part(const char* value) noexcept : kind_(kind::text), text_(value) {}
  template <class Text>
    requires(std::is_class_v<Text> && std::convertible_to<const Text&, std::string_view>)
  message_part(const Text& value) noexcept : kind_(kind::text), text_(value) {}

  void append_to(std::string& message) const {
    char digits[32];
    switch (kind_) {
    case kind::integer:
      message += print(digits, integer_);
      return;
    case kind::natural:
      message += print(digits, natural_);
      return;
    case kind::letter:
      message += letter_;
      return;
    case kind::single:
      message += print(digits, single_, std::chars_format::general);
      return;
    case kind::real: {
      // The shortest digits that read back as this number, or 6 digits where these are many.
      const std::string_view shortest = print(digits, real_, std::chars_format::general);
      message += shortest.size() <= 11 ? shortest : print(digits, real_, std::chars_format::general, 6);
      return;
    }
    case kind::text:
      message += text_;
    }
  }

private:
  enum class kind { integer, natural, letter, single, real, text };

  template <class... Arguments>
  [[nodiscard]] static std::string_view print(char (&digits)[32], const Arguments&... arguments) noexcept {
    return {digits, std::to_chars(digits, digits + sizeof digits, arguments...).ptr};
  }

  kind kind_;
  union {
    long long integer_;
    unsigned long long natural_;
    char letter_;
    float single_;
    double real_;
    std::string_view text_;
  };
};
} // namespace detail

/// Sets what programs compiled with -fno-exceptions call in place of a throw, and returns what was set before: at first
/// a function that prints the message to stderr. Set it before other threads use the library. Translation units
/// compiled with exceptions throw and call no handler; a program is compiled with exceptions or without, not both.
inline error_handler set_error_handler(error_handler handler) noexcept {
  return std::exchange(detail::handler, handler == nullptr ? detail::print_error : handler);
}

/// Throws hmoe::error; without exceptions it calls the error handler and aborts.
[[noreturn]] inline void fail(const std::string& message,
                              std::source_location where = std::source_location::current()) {
#if defined(__cpp_exceptions)
  throw error(message, where);
#else
  detail::handler(("hmoe: " + message).c_str(), where);
  std::abort();
#endif
}

namespace detail {
[[noreturn, gnu::cold, gnu::noinline]] inline void fail_with(std::initializer_list<message_part> parts,
                                                             const std::source_location& where) {
  std::string message;
  for (const message_part& part : parts)
    part.append_to(message);
  fail(message, where);
}
} // namespace detail

/// A condition together with the place that states it.
struct condition {
  bool holds;
  std::source_location where;
  constexpr condition(bool ok, std::source_location place = std::source_location::current())
      : holds(ok), where(place) {}
};

/// Throws hmoe::error (see fail) with the concatenated parts, numbers and texts, unless the condition holds; the text
/// is built only on failure.
template <class... Parts> void require(condition check, const Parts&... parts) {
  if (!check.holds) [[unlikely]]
    detail::fail_with({detail::message_part(parts)...}, check.where);
}

/// Calls f() and returns the exception that it threw, or null; without exceptions always null.
template <class F> [[nodiscard]] std::exception_ptr exception_of(F&& f) {
#if defined(__cpp_exceptions)
  try {
    f();
  } catch (...) {
    return std::current_exception();
  }
#else
  f();
#endif
  return nullptr;
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
