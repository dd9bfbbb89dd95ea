// SPDX-License-Identifier: MIT
#include "table.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <ostream>
#include <string_view>

namespace language_model {
namespace {

/// Columns that a terminal shows for UTF-8 text of one column per character.
std::size_t shown_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string fixed(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

struct summary {
  double mean = 0.0;
  double half_range = 0.0;
};

/// Over the runs of a variant.
summary summarise(const nlohmann::json& runs, const std::function<double(const nlohmann::json&)>& value) {
  double low = value(runs.front());
  double high = low;
  double sum = 0.0;
  for (const auto& run : runs) {
    const double x = value(run);
    low = std::min(low, x);
    high = std::max(high, x);
    sum += x;
  }
  return {sum / static_cast<double>(runs.size()), (high - low) / 2};
}

summary final_value(const nlohmann::json& runs, const char* key) {
  return summarise(runs, [key](const nlohmann::json& run) { return run.at("final").at(key).get<double>(); });
}

double mean_share(const nlohmann::json& runs, std::size_t layer, std::size_t expert) {
  return summarise(runs,
                   [&](const nlohmann::json& run) {
                     return run.at("final").at("share_per_layer").at(layer).at(expert).get<double>();
                   })
      .mean;
}

std::vector<std::string> summary_row(const nlohmann::json& variant) {
  const auto& runs = variant.at("runs");
  const summary loss = final_value(runs, "bits_per_byte");
  std::string layers;
  for (std::size_t l = 0; l < runs.front().at("final").at("activated_width_per_layer").size(); ++l) {
    const auto width = summarise(runs, [l](const nlohmann::json& run) {
      return run.at("final").at("activated_width_per_layer").at(l).get<double>();
    });
    layers += (l > 0 ? " / " : "") + fixed(width.mean, 1);
  }
  return {variant.at("title"),
          std::to_string(runs.size()),
          fixed(loss.mean, 3) + (runs.size() > 1 ? " ± " + fixed(loss.half_range, 3) : ""),
          fixed(final_value(runs, "activated_width").mean, 1),
          layers,
          fixed(final_value(runs, "activated_parameters").mean / 1e3, 1) + " k",
          fixed(final_value(runs, "flops_per_token").mean / 1e6, 3) + " M",
          fixed(final_value(runs, "tokens").mean / 1e6, 2) + " M",
          fixed(final_value(runs, "tokens_per_second").mean, 0)};
}

void print_shares(std::ostream& out, const nlohmann::json& variant) {
  const auto& runs = variant.at("runs");
  const std::size_t experts = variant.at("widths").size();
  std::vector<std::vector<std::string>> rows(1, {"  width"});
  for (const auto& width : variant.at("widths"))
    rows[0].push_back(std::to_string(width.get<std::size_t>()));
  for (std::size_t l = 0; l < runs.front().at("final").at("share_per_layer").size(); ++l) {
    rows.push_back({"  layer " + std::to_string(l)});
    for (std::size_t e = 0; e < experts; ++e)
      rows.back().push_back(fixed(100 * mean_share(runs, l, e), 1) + " %");
  }
  rows.push_back({"  ∝ 1/width"});
  for (const auto& share : variant.at("predicted_share")) {
    rows.back().push_back(fixed(100 * share.get<double>(), 1) + " %");
  }
  out << "\n" << variant.at("title").get<std::string>() << ": share of activations per expert\n";
  print_columns(out, rows);
}

} // namespace

void print_columns(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c)
      widths[c] = std::max(widths[c], shown_width(row[c]));
  }
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - shown_width(row[c]), ' ');
      out << (c == 0 ? row[c] + padding : "  " + padding + row[c]);
    }
    out << "\n";
  }
}

void print_table(std::ostream& out, const nlohmann::json& results) {
  std::vector<std::vector<std::string>> rows{{"variant", "seeds", "bits/byte", "activated width", "per layer",
                                              "activated parameters", "FLOPs/token", "tokens", "tokens/s"}};
  for (const auto& variant : results.at("variants"))
    rows.push_back(summary_row(variant));
  print_columns(out, rows);
  for (const auto& variant : results.at("variants")) {
    if (!variant.at("dense").get<bool>())
      print_shares(out, variant);
  }
}

void print_pruning_table(std::ostream& out, const nlohmann::json& results) {
  std::vector<std::vector<std::string>> rows{{"model", "cut", "of the experts' parameters", "seeds",
                                              "bits/byte when cut", "fine-tuned", "expert FLOPs/token", "expert bytes",
                                              "tokens/s"}};
  std::vector<nlohmann::json> groups; // lines that differ in the seed alone
  for (const auto& line : results.at("lines")) {
    const auto same = std::ranges::find_if(groups, [&](const nlohmann::json& group) {
      const auto& first = group.front();
      return first.at("model") == line.at("model") && first.at("cut") == line.at("cut") &&
             first.at("budget") == line.at("budget");
    });
    if (same != groups.end())
      same->push_back(line);
    else
      groups.push_back(nlohmann::json::array({line}));
  }
  for (const auto& group : groups) {
    const auto of = [&](const char* key) {
      return summarise(group, [key](const nlohmann::json& line) { return line.at(key).get<double>(); });
    };
    const auto bits = [&](const char* key) {
      return fixed(of(key).mean, 3) + (group.size() > 1 ? " ± " + fixed(of(key).half_range, 3) : "");
    };
    const auto& first = group.front();
    rows.push_back({first.at("model"), first.at("cut"), fixed(100 * first.at("budget").get<double>(), 0) + " %",
                    std::to_string(group.size()), bits("bits_per_byte_before"), bits("bits_per_byte"),
                    fixed(of("expert_flops_per_token").mean / 1e3, 1) + " k",
                    fixed(of("expert_bytes").mean / 1e3, 0) + " k", fixed(of("tokens_per_second").mean, 0)});
  }
  print_columns(out, rows);
}

} // namespace language_model
