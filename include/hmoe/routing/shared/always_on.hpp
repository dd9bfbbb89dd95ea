// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace hmoe::routing {

/// The last `count` experts of the set get every token, with weight 1 (DeepSeek, Llama-4).
struct always_on {
  std::size_t count = 1;

  [[nodiscard]] std::size_t size() const noexcept { return count; }
  template <class X, class T> static void forward(vector_view<X>, vector_view<T> weights) noexcept {
    std::fill(weights.begin(), weights.end(), T(1));
  }
  template <execution_context Context, class T>
  static void backward(const Context&, matrix_view<const T>, const assignment<T>&, vector_view<const T>, matrix_view<T>,
                       always_on&) noexcept {}
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("count", count); }
  template <class Visitor> static void visit_parameters(Visitor&&) noexcept {}
  static void initialize(seed, std::uint64_t, const initialization&) noexcept {}
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
