// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/routing/selection.hpp>

#include <utility>

namespace hmoe::routing {

/// What `biased` does, over a bias that somebody else owns: trivially copyable where Selection is, for device code.
template <class T, class Selection> struct biased_view {
  vector_view<const T> bias;
  Selection select;

  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t scratch_size(std::size_t n) const noexcept {
    return n + selection_scratch(select, n);
  }
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen,
                                                    vector_view<T> scratch) const {
    const vector_view<T> sums = scratch.subview(0, p.size());
    for (std::size_t i = 0; i < p.size(); ++i)
      sums[i] = p[i] + bias[i];
    return routing::select_row(select, vector_view<const T>(sums), chosen,
                               scratch.subview(p.size(), scratch.size() - p.size()));
  }
};

/// Another selection sees p_i + b_i; weights are still made of p. The bias balances the load without an auxiliary loss
/// (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3's e_score_correction_bias): it gets no gradient, and is moved
/// between steps by a rule of hmoe/routing/controllers/. It is visited with the parameters ("router.selection_bias",
/// not trained, its gradient stays 0), so that checkpoints hold it.
template <float_or_double T, class Selection> class biased {
  static_assert(selection<Selection, T>,
                "hmoe::routing::biased: Selection does not model hmoe::selection: it must choose for one token, as "
                "count = selection(vector_view<const T> p, vector_view<index_t> chosen); selections over a whole batch "
                "have no bias to take");

public:
  /// A bias of zeros.
  biased(std::size_t experts, Selection select) : bias_(1, experts), select_(std::move(select)) {}

  [[nodiscard]] vector_view<T> bias() noexcept { return bias_.row(0); }
  [[nodiscard]] vector_view<const T> bias() const noexcept { return bias_.row(0); }
  [[nodiscard]] const Selection& inner() const noexcept { return select_; }
  [[nodiscard]] biased_view<T, Selection> view() const { return {bias(), select_}; }

  [[nodiscard]] std::size_t max_selected(std::size_t experts) const {
    if constexpr (requires { select_.max_selected(experts); })
      return select_.max_selected(experts);
    else
      return experts;
  }
  [[nodiscard]] std::size_t scratch_size(std::size_t n) const { return n + selection_scratch(select_, n); }
  void validate(std::size_t experts) const {
    require(bias_.cols() == experts, "the selection bias is for ", bias_.cols(), " experts, there are ", experts);
    if constexpr (requires { select_.validate(experts); })
      select_.validate(experts);
  }

  std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen, vector_view<T> scratch) const {
    return view()(p, chosen, scratch);
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.selection_bias", false, parameter_info::no_expert, false}, bias_.view());
  }

private:
  matrix<T> bias_;
  Selection select_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
