// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/in_quotes.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io {

/// Names of tensors for a message, the first ten in full.
class name_list {
public:
  void add(std::string_view name) {
    if (count_++ < 10)
      names_ += (names_.empty() ? "" : ", ") + in_quotes(name);
  }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  /// "; 12 tensors are WHAT: "a", "b", … and 2 more", or nothing where there are none.
  [[nodiscard]] std::string text(std::string_view what) const {
    if (empty())
      return "";
    std::string text = "; " + std::to_string(count_) + (count_ == 1 ? " tensor is " : " tensors are ");
    text.append(what).append(": ").append(names_);
    if (count_ > 10)
      text += " and " + std::to_string(count_ - 10) + " more";
    return text;
  }

private:
  std::string names_;
  std::size_t count_ = 0;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
