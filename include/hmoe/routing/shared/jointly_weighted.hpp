// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>

namespace hmoe::routing {

/// The last `count` experts of the set get every token, and the router's Weighting makes their weights together with
/// those of the chosen experts: it sees rows of N + count logits z and scores F(z), where shared expert j has z = ⟨v_j,
/// x⟩. With `renormalized` all weights of a token add up to 1 (Inkling). F works on each logit alone, and is the score
/// function of the router: sigmoid, sqrt_softplus, relu or unscored. The trace, and so losses, leave them out.
/// Parameter: shared_gate [count×d].
template <float_or_double T, class Function = sigmoid> class jointly_weighted {
  static_assert(score_function<Function, T>,
                "hmoe::routing::jointly_weighted: Function does not model hmoe::score_function (see "
                "hmoe/routing/score_function.hpp); take that of the router's score, for instance routing::sigmoid");

public:
  static constexpr bool joins_weighting = true;

  explicit jointly_weighted(std::size_t d_model, std::size_t count = 1, Function function = {})
      : gate_(count, d_model), function_(std::move(function)) {
    require(d_model >= 1 && count >= 1, "a gate from d_model = ", d_model, " to ", count,
            " shared experts: both must be at least 1");
  }

  [[nodiscard]] std::size_t size() const noexcept { return gate_.rows(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return gate_.cols(); }
  [[nodiscard]] matrix_view<T> gate() noexcept { return gate_; }
  [[nodiscard]] matrix_view<const T> gate() const noexcept { return gate_; }
  void validate(std::size_t d) const {
    require(d_model() == d, "the gate of the shared experts reads tokens of ", d_model(), " values, the router of ", d);
  }

  /// z and F(z) of one token's shared experts.
  void scores(vector_view<const T> x, vector_view<T> z, vector_view<T> p) const {
    for (std::size_t j = 0; j < size(); ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < x.size(); ++c)
        sum += static_cast<double>(gate_(j, c)) * static_cast<double>(x[c]);
      z[j] = static_cast<T>(sum);
    }
    function_.forward(vector_view<const T>(z), p);
  }
  /// d_z += of one token, from ∂L/∂F(z).
  void scores_backward(vector_view<const T> z, vector_view<const T> p, vector_view<const T> d_p,
                       vector_view<T> d_z) const {
    function_.backward(z, p, d_p, d_z);
  }
  /// From ∂L/∂z [T×count]: dx += d_z v, gradients.v += d_zᵀ x
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const T> x, matrix_view<const T> d_z, matrix_view<T> dx,
                jointly_weighted& gradients) const {
    detail::project_backward(ctx, x, gate(), d_z, dx, gradients.gate());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.shared_gate"}, gate());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    fill_normal(vector_view<T>(gate_.data(), gate_.size()), options.router_stddev, key, stream);
  }

private:
  matrix<T> gate_;
  Function function_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
