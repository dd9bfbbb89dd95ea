// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// w_i = 1 / (number of chosen experts): no gradient to the router (Hash Layers, with one expert the weight is 1).
struct equal_weights {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = T(1) / static_cast<T>(chosen.size());
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t>,
                                        const Values&, const Values&, vector_view<T>, vector_view<T>) noexcept {}
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
