// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// p_i = z_i: for routers that select on the logits and weight by a function of their own (gpt-oss, Llama-4). These
/// are no probabilities: top_p has no meaning with it, and losses on probabilities are an hmoe::error that names
/// losses::of_softmax.
struct unscored {
  static constexpr bool makes_probabilities = false;

  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = z[i];
  }
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < d_z.size(); ++i)
      d_z[i] += d_p[i];
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
