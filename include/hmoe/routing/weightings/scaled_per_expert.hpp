// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace hmoe::routing {

/// Another weighting v times a learned scale of the expert: w_i = s_i v_i (Gemma 4's per_expert_scale). The scales are
/// 1 at first. Parameter: expert_scale [1×N], without weight decay.
template <float_or_double T, class Weighting = renormalized> class scaled_per_expert {
public:
  explicit scaled_per_expert(std::size_t experts, Weighting inner = {}) : scale_(1, experts), inner_(std::move(inner)) {
    reset();
  }

  [[nodiscard]] vector_view<T> scale() noexcept { return scale_.row(0); }
  [[nodiscard]] vector_view<const T> scale() const noexcept { return scale_.row(0); }
  [[nodiscard]] const Weighting& inner() const noexcept { return inner_; }

  void validate(std::size_t experts) const {
    require(scale_.cols() == experts, "scaled_per_expert has scales for ", scale_.cols(), " experts, there are ",
            experts);
    if constexpr (requires { inner_.validate(experts); })
      inner_.validate(experts);
  }
  [[nodiscard]] std::size_t scratch_size(std::size_t experts) const {
    return 2 * experts + weighting_scratch(inner_, experts);
  }

  void forward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, vector_view<T> w,
               vector_view<T> scratch) const {
    routing::weigh(inner_, logits, p, chosen, w, scratch);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] *= scale()[chosen[i]];
  }
  /// The inner one's backward from ∂L/∂v_i = s_i dw_i
  template <class Values>
  void backward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, const Values&,
                const Values& dw, vector_view<T> d_logits, vector_view<T> d_p, vector_view<T> scratch) const {
    const auto [v, dv] = unscaled(logits, p, chosen, dw, scratch);
    routing::weigh_backward(inner_, logits, p, chosen, v, dv, d_logits, d_p, rest(logits.size(), scratch));
  }
  /// gradients.s_i += dw_i v_i
  template <class Values>
  void parameter_gradients(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                           const Values&, const Values& dw, scaled_per_expert& gradients,
                           vector_view<T> scratch) const {
    const auto [v, dv] = unscaled(logits, p, chosen, dw, scratch);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      gradients.scale()[chosen[i]] += dw[i] * v[i];
    routing::weigh_parameters(inner_, logits, p, chosen, v, dv, gradients.inner_, rest(logits.size(), scratch));
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.expert_scale", false}, scale_.view());
    if constexpr (learned_weighting<Weighting>)
      inner_.visit_parameters(visit);
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    reset();
    if constexpr (learned_weighting<Weighting>)
      inner_.initialize(key, stream, options);
  }

private:
  void reset() { std::fill(scale().begin(), scale().end(), T(1)); }
  [[nodiscard]] static vector_view<T> rest(std::size_t experts, vector_view<T> scratch) {
    return scratch.subview(2 * experts, scratch.size() - 2 * experts);
  }
  /// v and ∂L/∂v, in scratch.
  template <class Values>
  [[nodiscard]] std::pair<vector_view<const T>, vector_view<const T>>
  unscaled(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, const Values& dw,
           vector_view<T> scratch) const {
    const std::size_t n = logits.size();
    const vector_view<T> v = scratch.subview(0, chosen.size()), dv = scratch.subview(n, chosen.size());
    routing::weigh(inner_, logits, p, chosen, v, rest(n, scratch));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      dv[i] = dw[i] * scale()[chosen[i]];
    return {v, dv};
  }

  matrix<T> scale_;
  Weighting inner_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
