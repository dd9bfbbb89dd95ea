// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// w_i = p_i: what Huang et al.'s top-p code and OLMoE do.
struct raw {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = p[chosen[i]];
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        const Values&, const Values& dw, vector_view<T>, vector_view<T> d_p) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += dw[i];
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
