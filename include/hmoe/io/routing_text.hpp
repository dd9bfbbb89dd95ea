// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/read_file.hpp>
#include <hmoe/io/routing_log.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// Routings as text, which tools of other engines can write: JSON lines, one for each record of a routing log, that is
/// for one batch (or one token) of one layer:
///   {"step": 7, "layer": 2, "expert_count": 8, "tokens": 2, "experts": [[0, 3], [5]], "weights": [[0.25, 0.75], [1]]}
/// Required are expert_count, which ids are below, and experts, an array of ids for each token. The others:
///   step, layer         0 unless given
///   tokens              the length of `experts`, to be checked
///   weights             in the form of `experts`; without it, a token's experts have equal weights that sum to 1
///   weights_on_input    true: an entry's weight scales what the expert reads; false unless given
///   token_ids           [tokens] vocabulary ids
///   valid               [tokens] 0 for padding, else 1
///   logits, probabilities   [tokens] arrays of equal length; both or none
/// Values that are not finite stand as the texts "nan", "inf" and "-inf". Members of other names are skipped.
namespace hmoe::io {

namespace detail {
/// So many digits that reading gives the same bits; with a point or an exponent where the sign of 0 needs it.
template <float_or_double T> void append_number(std::string& text, T value) {
  if (!std::isfinite(value)) {
    text += std::isnan(value) ? "\"nan\"" : value > 0 ? "\"inf\"" : "\"-inf\"";
    return;
  }
  char digits[64];
  const auto write = [&](auto v) {
    return std::string_view(digits,
                            static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, v).ptr - digits));
  };
  std::string_view shortest = write(value);
  double read = 0;
  std::from_chars(shortest.data(), shortest.data() + shortest.size(), read);
  if (static_cast<T>(read) != value) // readers round to double first
    shortest = write(static_cast<double>(value));
  text += shortest;
  if (value == 0 && std::signbit(value))
    text += ".0";
}
/// [a, b, …] of count values, each written by put(text, i).
template <class Put> void append_array(std::string& text, std::size_t count, const Put& put) {
  text += '[';
  for (std::size_t i = 0; i < count; ++i) {
    if (i != 0)
      text += ", ";
    put(i);
  }
  text += ']';
}
template <float_or_double T> void append_rows(std::string& text, std::string_view name, const matrix<T>& values) {
  text.append(", \"").append(name).append("\": ");
  append_array(text, values.rows(), [&](std::size_t t) {
    append_array(text, values.cols(), [&](std::size_t e) { append_number(text, values(t, e)); });
  });
}

template <float_or_double T> [[nodiscard]] T number_of(const json_value& value, std::string_view what) {
  using limits = std::numeric_limits<T>;
  if (value.is_text()) {
    const std::string& word = value.text(what);
    require(word == "nan" || word == "inf" || word == "-inf", what, " is the text ", in_quotes(word),
            ", needed is a number, \"nan\", \"inf\" or \"-inf\"");
    return word == "nan" ? limits::quiet_NaN() : word == "inf" ? limits::infinity() : -limits::infinity();
  }
  const double number = value.number(what);
  require(std::isfinite(static_cast<T>(number)), what, " is ", number, ", which is beyond the largest ",
          sizeof(T) == 4 ? "float" : "double", ", ", double{limits::max()});
  return static_cast<T>(number);
}
template <float_or_double T>
[[nodiscard]] matrix<T> rows_of(const json_value& value, std::size_t tokens, const std::string& what) {
  const auto& rows = value.elements(what);
  require(rows.size() == tokens, what, " are of ", rows.size(), " tokens, experts of ", tokens);
  const std::size_t cols = rows.empty() ? 0 : rows[0].elements(what).size();
  matrix<T> result(tokens, cols);
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::string name = what + " of token " + std::to_string(t);
    const auto& row = rows[t].elements(name);
    require(row.size() == cols, name, " are ", row.size(), " values, of token 0 there are ", cols);
    for (std::size_t e = 0; e < cols; ++e)
      result(t, e) = number_of<T>(row[e], name + ": a value");
  }
  return result;
}
} // namespace detail

/// A record as a line of text, without its end.
template <float_or_double T> [[nodiscard]] std::string to_routing_text(const routing_log_record<T>& record) {
  record.assigned.validate(static_cast<std::size_t>(record.experts));
  const std::size_t tokens = record.assigned.tokens();
  const auto entry = [&](std::size_t t, std::size_t i) { return record.assigned.offsets()[t] + i; };
  const auto count = [&](std::size_t t) { return record.assigned.offsets()[t + 1] - record.assigned.offsets()[t]; };
  std::string text = "{\"step\": " + std::to_string(record.step) + ", \"layer\": " + std::to_string(record.layer) +
                     ", \"expert_count\": " + std::to_string(record.experts) +
                     ", \"tokens\": " + std::to_string(tokens) + ", \"experts\": ";
  detail::append_array(text, tokens, [&](std::size_t t) {
    detail::append_array(text, count(t),
                         [&](std::size_t i) { text += std::to_string(record.assigned.experts()[entry(t, i)]); });
  });
  text += ", \"weights\": ";
  detail::append_array(text, tokens, [&](std::size_t t) {
    detail::append_array(text, count(t),
                         [&](std::size_t i) { detail::append_number(text, record.assigned.weights()[entry(t, i)]); });
  });
  if (record.weights_on_input)
    text += ", \"weights_on_input\": true";
  const auto append_list = [&](std::string_view name, const auto& values) {
    if (values.empty())
      return;
    text.append(", \"").append(name).append("\": ");
    detail::append_array(text, values.size(), [&](std::size_t i) { text += std::to_string(values[i]); });
  };
  append_list("token_ids", record.token_ids);
  append_list("valid", record.valid);
  if (record.logits.cols() != 0) {
    detail::append_rows(text, "logits", record.logits);
    detail::append_rows(text, "probabilities", record.probabilities);
  }
  return text + "}";
}

/// A record from a line of text; `name` stands for it in messages: the file and the line. Experts of a token may stand
/// in any order; each comes at most once.
template <float_or_double T>
[[nodiscard]] routing_log_record<T> from_routing_text(std::string_view line, const std::string& name) {
  const json_value all = parse_json(line, name);
  routing_log_record<T> record;
  const auto natural = [&](std::string_view member) {
    const json_value* found = all.find(member);
    return found == nullptr ? std::uint64_t{0} : found->natural(name + ": " + std::string(member));
  };
  record.step = natural("step");
  record.layer = natural("layer");
  record.experts = all.at("expert_count", name).natural(name + ": expert_count");
  require(record.experts < no_index, name, ": expert_count is ", record.experts, ", too many for 32-bit ids");
  const auto& experts = all.at("experts", name).elements(name + ": experts");
  const json_value* weights = all.find("weights");
  const std::size_t tokens = experts.size();
  if (const json_value* told = all.find("tokens"); told != nullptr)
    require(told->natural(name + ": tokens") == tokens, name, ": tokens is ", told->natural("tokens"),
            ", but experts has ", tokens, " arrays");
  if (weights != nullptr)
    require(weights->elements(name + ": weights").size() == tokens, name, ": weights are of ",
            weights->elements("weights").size(), " tokens, experts of ", tokens);

  std::vector<std::pair<index_t, T>> entries, of_token;
  record.assigned.resize_tokens(tokens);
  record.assigned.offsets()[0] = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::string token = name + ": token " + std::to_string(t);
    const auto& ids = experts[t].elements(token);
    const auto* values = weights == nullptr ? nullptr : &weights->elements("weights")[t].elements(token);
    require(values == nullptr || values->size() == ids.size(), token, " has ", ids.size(), " experts and ",
            values == nullptr ? 0 : values->size(), " weights");
    of_token.clear();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::uint64_t id = ids[i].natural(token + ": an expert");
      require(id < record.experts, token, " is assigned to expert ", id, " of ", record.experts);
      of_token.emplace_back(static_cast<index_t>(id), values == nullptr
                                                          ? T(1) / static_cast<T>(ids.size())
                                                          : detail::number_of<T>((*values)[i], token + ": a weight"));
    }
    std::ranges::sort(of_token, {}, [](const auto& entry) { return entry.first; });
    for (std::size_t i = 1; i < of_token.size(); ++i)
      require(of_token[i - 1].first != of_token[i].first, token, " is assigned to expert ", of_token[i].first,
              " twice");
    entries.insert(entries.end(), of_token.begin(), of_token.end());
    require(entries.size() < no_index, name, ": ", entries.size(), " entries are too many for 32-bit offsets");
    record.assigned.offsets()[t + 1] = static_cast<index_t>(entries.size());
  }
  record.assigned.resize_entries();
  for (std::size_t i = 0; i < entries.size(); ++i) {
    record.assigned.experts()[i] = entries[i].first;
    record.assigned.weights()[i] = entries[i].second;
  }
  if (const json_value* on_input = all.find("weights_on_input"); on_input != nullptr)
    record.weights_on_input = on_input->boolean(name + ": weights_on_input");
  const auto list = [&](std::string_view member, std::uint64_t most, auto& to) {
    const json_value* found = all.find(member);
    if (found == nullptr)
      return;
    const std::string what = name + ": " + std::string(member);
    const auto& values = found->elements(what);
    require(values.size() == tokens, what, " has ", values.size(), " values for ", tokens, " tokens");
    for (const json_value& v : values) {
      const std::uint64_t number = v.natural(what);
      require(number <= most, what, " has the value ", number, ", possible are 0 to ", most);
      to.push_back(static_cast<typename std::remove_cvref_t<decltype(to)>::value_type>(number));
    }
  };
  list("token_ids", no_index, record.token_ids);
  list("valid", 1, record.valid);
  record.assigned.set_padding(static_cast<std::size_t>(std::ranges::count(record.valid, 0)));
  const json_value *logits = all.find("logits"), *probabilities = all.find("probabilities");
  require((logits == nullptr) == (probabilities == nullptr), name, " has ",
          logits == nullptr ? "probabilities, but no logits" : "logits, but no probabilities");
  if (logits != nullptr) {
    record.logits = detail::rows_of<T>(*logits, tokens, name + ": logits");
    record.probabilities = detail::rows_of<T>(*probabilities, tokens, name + ": probabilities");
    require(record.logits.cols() == record.probabilities.cols(), name, ": a token has ", record.logits.cols(),
            " logits and ", record.probabilities.cols(), " probabilities");
  }
  return record;
}

/// Writes routings to a file, a line for each, as a file_writer does: at close(), or not at all.
template <float_or_double T> class routing_text_writer {
public:
  explicit routing_text_writer(std::string path) : file_(std::move(path)) {}
  void add(const routing_log_record<T>& record) {
    const std::string line = to_routing_text(record) + "\n";
    file_.write(std::as_bytes(std::span(line)));
  }
  /// Completes the file. Nothing can be added afterwards.
  void close() { file_.commit(); }

private:
  file_writer file_;
};

/// All records of such a file; lines without text are skipped. Errors name the file and the line.
template <float_or_double T>
[[nodiscard]] std::vector<routing_log_record<T>> read_routing_text(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::vector<routing_log_record<T>> records;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos)
      records.push_back(from_routing_text<T>(line, path + ", line " + std::to_string(number)));
  }
  return records;
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
