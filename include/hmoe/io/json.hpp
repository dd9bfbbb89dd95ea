// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<nlohmann/json.hpp>)
#error "hmoe/io/ needs nlohmann-json: install it (nlohmann-json3-dev) and link hmoe::io"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hmoe::io {

/// A value of a JSON text. The functions that return a part of it take `what`, the words for this value in a message:
/// hmoe::error where it is of another kind.
class json_value {
public:
  using array_type = std::vector<json_value>;
  using member = std::pair<std::string, json_value>;
  using object_type = std::vector<member>; ///< ascending by name, each name once

  json_value() = default;
  template <class V> explicit json_value(V value) : value_(std::move(value)) {}

  [[nodiscard]] bool is_null() const noexcept { return std::holds_alternative<std::nullptr_t>(value_); }
  [[nodiscard]] bool is_object() const noexcept { return std::holds_alternative<object_type>(value_); }
  [[nodiscard]] bool is_array() const noexcept { return std::holds_alternative<array_type>(value_); }
  [[nodiscard]] bool is_text() const noexcept { return std::holds_alternative<std::string>(value_); }

  [[nodiscard]] const object_type& members(std::string_view what) const { return get<object_type>(what, "an object"); }
  [[nodiscard]] const array_type& elements(std::string_view what) const { return get<array_type>(what, "an array"); }
  [[nodiscard]] const std::string& text(std::string_view what) const { return get<std::string>(what, "a text"); }
  [[nodiscard]] bool boolean(std::string_view what) const { return get<bool>(what, "true or false"); }
  /// A whole number from 0 to 2⁶⁴ − 1.
  [[nodiscard]] std::uint64_t natural(std::string_view what) const {
    return get<std::uint64_t>(what, "a whole number from 0 to 2^64 - 1");
  }
  /// Any number, rounded to double.
  [[nodiscard]] double number(std::string_view what) const {
    if (const auto* natural = std::get_if<std::uint64_t>(&value_))
      return static_cast<double>(*natural);
    if (const auto* negative = std::get_if<std::int64_t>(&value_))
      return static_cast<double>(*negative);
    return get<double>(what, "a number");
  }

  /// The member of that name, or null: there is none, or this is no object.
  [[nodiscard]] const json_value* find(std::string_view name) const noexcept {
    const auto* object = std::get_if<object_type>(&value_);
    if (object == nullptr)
      return nullptr;
    const auto at =
        std::ranges::lower_bound(*object, name, {}, [](const member& m) { return std::string_view(m.first); });
    return at != object->end() && at->first == name ? &at->second : nullptr;
  }
  /// The member of that name.
  [[nodiscard]] const json_value& at(std::string_view name, std::string_view what) const {
    static_cast<void>(members(what));
    const json_value* found = find(name);
    require(found != nullptr, what, " has no member ", in_quotes(name));
    return *found;
  }

private:
  template <class V> [[nodiscard]] const V& get(std::string_view what, std::string_view needed) const {
    const V* value = std::get_if<V>(&value_);
    require(value != nullptr, what, " is ", kind(), ", needed is ", needed);
    return *value;
  }
  [[nodiscard]] std::string kind() const {
    constexpr const char* kinds[] = {
        "null",     "true or false", "a whole number from 0", "a negative whole number", "a real number", "a text",
        "an array", "an object"};
    return kinds[value_.index()];
  }

  std::variant<std::nullptr_t, bool, std::uint64_t, std::int64_t, double, std::string, array_type, object_type> value_;
};

/// What a text may make of memory: nested so deep at most, with so many values and members in all.
struct json_limits {
  std::size_t depth = 16;
  std::size_t values = std::size_t{1} << 22U;
};

namespace detail {
/// Receives the parts of a text from nlohmann's parser, which has no recursion.
class json_builder {
public:
  json_builder(std::string_view name, json_limits limits) : name_(name), limits_(limits) {}

  bool null() { return add(json_value()); }
  bool boolean(bool value) { return add(json_value(value)); }
  bool number_integer(std::int64_t value) { return add(json_value(value)); }
  bool number_unsigned(std::uint64_t value) { return add(json_value(value)); }
  bool number_float(double value, const std::string&) { return add(json_value(value)); }
  bool string(std::string& value) { return add(json_value(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(true); }
  bool start_array(std::size_t) { return open(false); }
  bool key(std::string& name) {
    open_.back().names.push_back(std::move(name));
    return true;
  }
  bool end_array() {
    level done = std::move(open_.back());
    open_.pop_back();
    return place(json_value(std::move(done.values)));
  }
  bool end_object() {
    level done = std::move(open_.back());
    open_.pop_back();
    json_value::object_type members;
    members.reserve(done.values.size());
    for (std::size_t i = 0; i < done.values.size(); ++i)
      members.emplace_back(std::move(done.names[i]), std::move(done.values[i]));
    const auto name_of = [](const json_value::member& m) -> const std::string& { return m.first; };
    std::ranges::sort(members, {}, name_of);
    const auto twice = std::ranges::adjacent_find(members, {}, name_of);
    if (twice != members.end())
      fail(name_ + " has the key " + in_quotes(twice->first) + " twice in one object");
    return place(json_value(std::move(members)));
  }
  template <class Exception> bool parse_error(std::size_t position, const std::string&, const Exception&) {
    fail(name_ + " is no JSON in UTF-8: byte " + std::to_string(position) + " does not fit");
  }

  [[nodiscard]] json_value result() { return std::move(result_); }

private:
  struct level {
    bool object = false;
    std::vector<std::string> names;
    json_value::array_type values;
  };

  bool open(bool object) {
    require(open_.size() < limits_.depth, name_, " is nested deeper than ", limits_.depth, " levels");
    count();
    open_.push_back({object, {}, {}});
    return true;
  }
  bool add(json_value value) {
    count();
    return place(std::move(value));
  }
  void count() { require(++values_ <= limits_.values, name_, " has more than ", limits_.values, " values"); }
  bool place(json_value value) {
    if (open_.empty())
      result_ = std::move(value);
    else
      open_.back().values.push_back(std::move(value));
    return true;
  }

  std::string name_;
  json_limits limits_;
  std::vector<level> open_;
  json_value result_;
  std::size_t values_ = 0;
};
} // namespace detail

/// The value of a JSON text in UTF-8. A text that is none, or beyond the limits, or with a key twice in an object, is
/// an hmoe::error that begins with `name`, the words for the text in messages.
[[nodiscard]] inline json_value parse_json(std::string_view text, std::string_view name, json_limits limits = {}) {
  detail::json_builder builder(name, limits);
  // The builder throws what is wrong; without exceptions the first error ends the program.
  static_cast<void>(nlohmann::json::sax_parse(text.begin(), text.end(), &builder));
  return builder.result();
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
