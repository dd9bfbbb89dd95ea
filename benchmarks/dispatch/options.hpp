// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

namespace benchmarks {

inline constexpr std::string_view dispatch_usage =
    "usage: dispatch [--list] [--quick] [--filter REGEX] [--out FILE.jsonl] [--seconds S] [--log FILE]\n"
    "  --list          the names of the cells, and nothing else\n"
    "  --quick         four shapes, few loads, powers of four up to 1024 tokens\n"
    "  --filter REGEX  the cells whose name matches, of all that there are\n"
    "  --out FILE      append results there, and leave out what stands there; else they go to standard output\n"
    "  --seconds S     for each point, for all strategies together (default 2.5)\n"
    "  --log FILE      the routing of the load `recorded`: a routing log, or its form as text (.jsonl)\n";

struct dispatch_options {
  bool list = false, quick = false;
  std::string filter, out, log;
  double seconds = 2.5;
};

[[nodiscard]] inline dispatch_options parse_options(int count, char** values) {
  dispatch_options chosen;
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    const auto value = [&] {
      hmoe::require(i + 1 < count, name, " needs a value");
      return std::string(values[++i]);
    };
    if (name == "--list")
      chosen.list = true;
    else if (name == "--quick")
      chosen.quick = true;
    else if (name == "--filter")
      chosen.filter = value();
    else if (name == "--out")
      chosen.out = value();
    else if (name == "--log")
      chosen.log = value();
    else if (name == "--seconds") {
      const std::string text = value();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), chosen.seconds);
      hmoe::require(error == std::errc{} && end == text.data() + text.size() && chosen.seconds > 0, "--seconds is \"",
                    text, "\": give a number above 0");
    } else
      hmoe::fail("unknown argument: " + name + "\n" + std::string(dispatch_usage));
  }
  return chosen;
}

} // namespace benchmarks
