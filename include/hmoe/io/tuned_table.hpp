// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/json_text.hpp>
#include <hmoe/io/read_file.hpp>

#include <charconv>
#include <cstddef>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe::io {

/// Version of the file of a tuned table.
inline constexpr std::size_t tuned_table_version = 2;

/// The name of this machine's CPU, as Linux tells it; "unknown" where it does not.
[[nodiscard]] inline std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name"))
      if (const std::size_t colon = line.find(": "); colon != std::string::npos)
        return line.substr(colon + 2);
  return "unknown";
}

/// The table as JSON text:
///   {"hmoe_tuned_table": 2, "cpu": "…", "d_model": d, "experts": N, "bytes": of all experts, "threads": p,
///    "choices": [{"tokens": T, "effective_experts": 1.5, "inference": "per_token", "training": "sorted"}, …]}
[[nodiscard]] inline std::string tuned_table_text(const dispatch::tuned_table& table) {
  std::string text = "{\"hmoe_tuned_table\": " + std::to_string(tuned_table_version) + ", \"cpu\": ";
  append_json_string(text, table.cpu);
  const auto number = [&](std::string_view name, std::size_t value) {
    text += ", \"" + std::string(name) + "\": " + std::to_string(value);
  };
  number("d_model", table.shape.d_model);
  number("experts", table.shape.experts);
  number("bytes", table.shape.bytes);
  number("threads", table.shape.threads);
  const auto shortest = [](double value) { // reading it gives the same value, in any locale
    char digits[32];
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  };
  text += ",\n \"choices\": [";
  std::string_view between = "\n";
  for (const auto& c : table.choices) {
    text += std::string(between) + "  {\"tokens\": " + std::to_string(c.tokens) +
            ", \"effective_experts\": " + shortest(c.effective_experts) + ", \"inference\": \"" +
            std::string(name_of(c.inference)) + "\", \"training\": \"" + std::string(name_of(c.training)) + "\"}";
    between = ",\n";
  }
  return text + "]}\n";
}

/// The table of such a text. hmoe::error that begins with `name` for another text, another version, a table of another
/// CPU than `cpu`, or one that is out of order.
[[nodiscard]] inline dispatch::tuned_table parse_tuned_table(std::string_view text, const std::string& name,
                                                             const std::string& cpu) {
  const json_value all = parse_json(text, name);
  const std::uint64_t version = all.at("hmoe_tuned_table", name).natural(name + ": hmoe_tuned_table");
  require(version == tuned_table_version, name, " has version ", version, " of tuned tables, this library reads ",
          tuned_table_version, ": tune again");
  const auto number = [&](std::string_view member) {
    return static_cast<std::size_t>(all.at(member, name).natural(name + ": " + std::string(member)));
  };
  dispatch::tuned_table table;
  table.cpu = all.at("cpu", name).text(name + ": cpu");
  require(table.cpu == cpu, name, " was tuned on ", in_quotes(table.cpu), ", this machine is ", in_quotes(cpu),
          ": tune again");
  table.shape = {number("d_model"), number("experts"), number("bytes"), number("threads")};
  for (const json_value& line : all.at("choices", name).elements(name + ": choices")) {
    const std::string what = name + ": choices[" + std::to_string(table.choices.size()) + "]";
    const auto picked = [&](std::string_view member) {
      return dispatch::strategy_of(line.at(member, what).text(what + ": " + std::string(member)));
    };
    table.choices.push_back({static_cast<std::size_t>(line.at("tokens", what).natural(what + ": tokens")),
                             line.at("effective_experts", what).number(what + ": effective_experts"),
                             picked("inference"), picked("training")});
  }
  require(!table.choices.empty(), name, " has no choices: tune again");
  table.validate();
  return table;
}

/// hmoe::error where the file cannot be written.
inline void write_tuned_table(const dispatch::tuned_table& table, const std::string& path) {
  const std::string text = tuned_table_text(table);
  file_writer to(path);
  to.write(std::as_bytes(std::span(text.data(), text.size())));
  to.commit();
}
/// For this machine: as parse_tuned_table.
[[nodiscard]] inline dispatch::tuned_table read_tuned_table(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return parse_tuned_table(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path,
                           cpu_name());
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
