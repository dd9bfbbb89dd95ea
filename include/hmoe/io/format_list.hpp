// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace hmoe::io {

/// Formats of packed weights of which one is chosen by its name at run time, as an option or a file says:
///   format_list<backends::formats::q8, backends::formats::q4>
/// The program compiles the kernels of all of them.
template <class... Formats> struct format_list {
  static_assert(sizeof...(Formats) >= 1, "hmoe::io::format_list: Formats is empty: give at least one, for instance "
                                         "backends::formats::q8");

  /// f.template operator()<Format>() of the format with that name; it returns the same type for all of them.
  /// hmoe::error, which lists the names, where there is none.
  template <class F> static auto visit(std::string_view name, F&& f) { return visit_first<Formats...>(name, f); }

private:
  template <class First, class... Others, class F> static auto visit_first(std::string_view name, F& f) {
    std::optional<decltype(f.template operator()<First>())> result;
    std::string names;
    const auto try_format = [&]<class Format>() {
      names.append(names.empty() ? "" : ", ").append(Format::name);
      if (!result && name == Format::name)
        result.emplace(f.template operator()<Format>());
    };
    try_format.template operator()<First>();
    (try_format.template operator()<Others>(), ...);
    require(result.has_value(), "the format of packed weights is ", in_quotes(name), ": possible are ", names);
    return std::move(*result);
  }
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
