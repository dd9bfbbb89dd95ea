// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !defined(__cpp_exceptions)
#error                                                                                                                 \
    "hmoe/testing needs exceptions, which its laws look at: compile the program that checks them without -fno-exceptions"
#endif

#include <algorithm>
#include <cstddef>
#include <exception>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Laws that a policy of your own must obey. Each exercises one object and returns a report:
///   check_expert, check_activation, check_gate, check_widths
///   check_selection, check_batch_selection, check_weighting, check_router
///   check_loss, check_dispatch, check_capacity, check_drop_order, check_optimizer, check_executor, check_backend
///   check_probe, check_stages, check_communicator
/// They need no test framework:
///   const auto report = hmoe::testing::check_selection<float>(my_selection, 8);
///   if (!report.ok()) std::cerr << report.text();
namespace hmoe::testing {

/// What was found wrong, one sentence for each law that was broken: the law, a colon, and the first case that broke it.
class report {
public:
  [[nodiscard]] bool ok() const noexcept { return sentences_.empty(); }
  [[nodiscard]] const std::vector<std::string>& sentences() const noexcept { return sentences_; }
  /// All sentences, one a line; empty when nothing is wrong.
  [[nodiscard]] std::string text() const {
    std::string all;
    for (const std::string& sentence : sentences_)
      all += sentence + "\n";
    return all;
  }
  /// Whether a sentence has these words in it.
  [[nodiscard]] bool mentions(std::string_view words) const { return text().find(words) != std::string::npos; }

  /// Notes that `law` is broken, with the concatenated details, unless `holds`. Returns `holds`.
  template <class... Details> bool expect(bool holds, std::string_view law, const Details&... details) {
    if (holds) // nearly always, for each value of a row
      return true;
    if (std::string start = std::string(law) + ": "; !begins_a_sentence(start)) {
      std::ostringstream text;
      text.precision(9);
      (text << ... << details);
      sentences_.push_back(std::move(start) + text.str());
    }
    return false;
  }

  /// Runs `check`; an exception from it breaks the law.
  template <class Check> void expect_no_throw(std::string_view law, Check&& check) {
    try {
      std::forward<Check>(check)();
    } catch (const std::exception& e) {
      expect(false, law, "an exception was thrown: ", e.what());
    }
  }

private:
  [[nodiscard]] bool begins_a_sentence(std::string_view words) const {
    return std::any_of(sentences_.begin(), sentences_.end(), [&](const auto& s) { return s.starts_with(words); });
  }

  std::vector<std::string> sentences_;
};

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
