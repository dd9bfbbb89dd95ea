// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <nlohmann/json.hpp>

#include <fstream>
#include <iostream>
#include <ostream>
#include <set>
#include <string>

namespace benchmarks {

using json = nlohmann::ordered_json;

/// An object as a line of a file of results.
[[nodiscard]] inline std::string line_of(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

/// Where results go, and the names that stand there already. A line without its end, which an interrupted run may
/// leave, does not count.
class results_file {
public:
  explicit results_file(const std::string& path) {
    if (path.empty())
      return;
    std::ifstream old(path, std::ios::binary);
    bool whole = true;
    for (std::string text; std::getline(old, text); whole = !old.eof())
      if (const json line = json::parse(text, nullptr, false); line.is_object() && line.contains("name"))
        names_.insert(line["name"].get<std::string>());
    file_.open(path, std::ios::binary | std::ios::app);
    hmoe::require(file_.good(), path, " cannot be written");
    if (!whole)
      file_ << '\n';
  }
  [[nodiscard]] bool has(const std::string& name) const { return names_.contains(name); }
  void write(const std::string& lines) {
    std::ostream& to = file_.is_open() ? file_ : std::cout;
    to << lines << std::flush;
    hmoe::require(to.good(), "results cannot be written: is the disk full?");
  }

private:
  std::set<std::string> names_;
  std::ofstream file_;
};

} // namespace benchmarks
