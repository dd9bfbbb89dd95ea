// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/read_file.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io::models {

/// config.json of a model folder. Each value is asked for by its name there, or by several names of which releases use
/// one; null counts as absent. Every function is an hmoe::error with file, name and number where a value is missing
/// without a fallback, of another kind, or outside of its limits.
class model_config {
public:
  using names = std::initializer_list<std::string_view>;
  /// No layer of any model is wider, and no model has more layers or experts.
  static constexpr std::size_t largest_size = std::size_t{1} << 24U;

  /// Of a model folder.
  [[nodiscard]] static model_config of_folder(const std::string& folder) {
    const std::string path = folder + "/config.json";
    const std::vector<std::byte> bytes = read_file(path);
    return {std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path};
  }
  /// Of a text; `name` is what messages call it. Of a model of several parts (text and images) it is the part
  /// text_config.
  model_config(std::string_view text, const std::string& name) : model_config(parse_json(text, name), name, 0) {
    if (has({"text_config"}))
      *this = part("text_config");
  }

  /// What messages call it.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// model_type: the family.
  [[nodiscard]] const std::string& family() const { return value_.at("model_type", name_).text(what("model_type")); }

  [[nodiscard]] bool has(names of) const { return find(of) != nullptr; }
  /// A whole number from `least` to largest_size.
  [[nodiscard]] std::size_t size(names of, std::size_t least = 1) const {
    const auto& [name, value] = get(of);
    return checked(*value, what(name), least);
  }
  [[nodiscard]] std::size_t size_or(names of, std::size_t fallback, std::size_t least = 0) const {
    return has(of) ? size(of, least) : fallback;
  }
  /// A finite number.
  [[nodiscard]] double number(names of) const {
    const auto& [name, value] = get(of);
    const double result = value->number(what(name));
    require(std::isfinite(result), what(name), " is ", result, ", needed is a finite number");
    return result;
  }
  [[nodiscard]] double number_or(names of, double fallback) const { return has(of) ? number(of) : fallback; }
  [[nodiscard]] bool flag_or(names of, bool fallback) const {
    const json_value* value = find(of);
    return value == nullptr ? fallback : value->boolean(what(*of.begin()));
  }
  [[nodiscard]] std::string text_or(names of, std::string fallback) const {
    const json_value* value = find(of);
    return value == nullptr ? fallback : value->text(what(*of.begin()));
  }
  /// A list of whole numbers from 0; empty where there is none.
  [[nodiscard]] std::vector<std::size_t> sizes(names of) const {
    std::vector<std::size_t> result;
    if (const json_value* value = find(of))
      for (const json_value& element : value->elements(what(*of.begin())))
        result.push_back(checked(element, what(*of.begin()), 0));
    return result;
  }
  /// A list of texts; empty where there is none.
  [[nodiscard]] std::vector<std::string> texts(names of) const {
    std::vector<std::string> result;
    if (const json_value* value = find(of))
      for (const json_value& element : value->elements(what(*of.begin())))
        result.push_back(element.text(what(*of.begin())));
    return result;
  }
  /// A value of a list with one for each layer, or the same for all.
  [[nodiscard]] std::size_t size_of_layer(names of, std::size_t layer) const {
    const auto& [name, value] = get(of);
    if (!value->is_array())
      return checked(*value, what(name), 1);
    const auto& all = value->elements(what(name));
    require(layer < all.size(), what(name), " has ", all.size(), " values, none for layer ", layer);
    return checked(all[layer], what(name), 1);
  }
  /// An object within; hmoe::error where there is none.
  [[nodiscard]] model_config part(std::string_view name) const {
    const auto& [found, value] = get({name});
    return {*value, name_ + ": " + std::string(found), 0};
  }

  /// hmoe::error unless the value, where there is one, is one of these texts.
  void require_text(names of, names allowed) const {
    const json_value* value = find(of);
    if (value == nullptr)
      return;
    const std::string& text = value->text(what(*of.begin()));
    for (const std::string_view one : allowed)
      if (text == one)
        return;
    fail(what(*of.begin()) + " is " + in_quotes(text) + ", this family's layers have " + in_quotes(*allowed.begin()));
  }
  /// hmoe::error unless the model has such a layer.
  void require_layer(std::size_t layer, names count) const {
    const std::size_t layers = size(count);
    require(layer < layers, name_, ": the model has ", layers, " layers, there is no layer ", layer);
  }
  /// hmoe::error: the layer has no experts, for the reason that `why` names.
  void require_sparse(bool sparse, std::size_t layer, std::string_view why) const {
    require(sparse, name_, ": layer ", layer, " is dense, it has no experts (", why, ")");
  }

private:
  model_config(json_value value, std::string name, int) : value_(std::move(value)), name_(std::move(name)) {
    static_cast<void>(value_.members(name_));
  }
  [[nodiscard]] std::string what(std::string_view name) const { return name_ + ": " + in_quotes(name); }
  [[nodiscard]] const json_value* find(names of) const noexcept {
    for (const std::string_view name : of)
      if (const json_value* value = value_.find(name); value != nullptr && !value->is_null())
        return value;
    return nullptr;
  }
  [[nodiscard]] std::pair<std::string_view, const json_value*> get(names of) const {
    for (const std::string_view name : of)
      if (const json_value* value = value_.find(name); value != nullptr && !value->is_null())
        return {name, value};
    fail(name_ + " has no value " + in_quotes(*of.begin()));
  }
  [[nodiscard]] static std::size_t checked(const json_value& value, const std::string& what, std::size_t least) {
    const std::uint64_t number = value.natural(what);
    require(number >= least && number <= largest_size, what, " is ", number, ", possible are ", least, " to ",
            largest_size);
    return static_cast<std::size_t>(number);
  }

  json_value value_;
  std::string name_;
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
