// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <cstddef>

namespace hmoe::io::models {

/// The weighting of families whose config.json says by norm_topk_prob whether weights are renormalised: as
/// routing::renormalized where it is true, as routing::raw where it is false.
struct norm_topk_prob {
  bool on = true;
  routing::renormalized normalize{};

  void validate(std::size_t experts) const { normalize.validate(experts); }
  template <class T>
  HMOE_HOST_DEVICE void forward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w) const noexcept {
    if (on)
      normalize.forward(logits, p, chosen, w);
    else
      routing::raw::forward(logits, p, chosen, w);
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE void backward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                                 const Values& w, const Values& dw, vector_view<T> d_logits,
                                 vector_view<T> d_p) const noexcept {
    if (on)
      normalize.backward(logits, p, chosen, w, dw, d_logits, d_p);
    else
      routing::raw::backward(logits, p, chosen, w, dw, d_logits, d_p);
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
