// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

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

/// A condition together with the place that states it.
struct condition {
  bool holds;
  std::source_location where;
  constexpr condition(bool ok, std::source_location place = std::source_location::current())
      : holds(ok), where(place) {}
};

/// Throws hmoe::error with the concatenated parts unless the condition holds; the text is built only on failure.
template <class... Parts> void require(condition check, const Parts&... parts) {
  if (check.holds) [[likely]]
    return;
  std::ostringstream text;
  (text << ... << parts);
  throw error(text.str(), check.where);
}

} // namespace hmoe
