// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/execution/context.hpp>

#include <cstddef>
#include <cstdint>

namespace hmoe::routing {

/// No shared experts: every expert competes for tokens.
struct no_shared {
  [[nodiscard]] static constexpr std::size_t size() noexcept { return 0; }
  template <class X, class T> static void forward(vector_view<X>, vector_view<T>) noexcept {}
  template <execution_context Context, class T>
  static void backward(const Context&, matrix_view<const T>, const assignment<T>&, vector_view<const T>, matrix_view<T>,
                       no_shared&) noexcept {}
  template <class Visitor> static void visit_parameters(Visitor&&) noexcept {}
  static void initialize(seed, std::uint64_t, const initialization&) noexcept {}
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
