// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/testing/report.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace hmoe::testing {

/// What a backend promises.
struct backend_options {
  bool same_bits_in_any_batch = true; ///< a row of a product has the same bits whatever rows come with it
  double tolerance = 64;              ///< units in the last place that a function of one value may be off
};

/// What was found, and which operations the backend has: a misspelt one is among those that it lacks.
class backend_report : public report {
public:
  [[nodiscard]] const std::vector<std::string>& has() const noexcept { return has_; }
  [[nodiscard]] const std::vector<std::string>& lacks() const noexcept { return lacks_; }
  /// "has: …; lacks: …", to print.
  [[nodiscard]] std::string operations() const {
    const auto list = [](const std::vector<std::string>& names) {
      std::string all;
      for (const std::string& name : names)
        all += (all.empty() ? "" : ", ") + name;
      return all.empty() ? std::string("none") : all;
    };
    return "has: " + list(has_) + "; lacks: " + list(lacks_);
  }

  void note(std::string_view operation, bool there) { (there ? has_ : lacks_).emplace_back(operation); }

private:
  std::vector<std::string> has_, lacks_;
};

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
