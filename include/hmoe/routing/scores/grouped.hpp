// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::routing {

/// A router for groups of experts beside the one for experts, each with weights of its own (MoHGE): for expert e of
/// group g, with z the logits of another score and u = W_g x,
///   logits_e = u_g + z_e − log Σ_{j∈g} exp z_j,   W_g [G×d],
/// so that with softmax P_e = P(g) P(e | g), P(g) = softmax(u)_g, P(e | g) = softmax of z within the group. two_level
/// over the same groups then chooses them by P(g). Groups are runs of consecutive experts. Parameter: group_weight.
template <class Score> class grouped : public score_wrapper<Score> {
  static_assert(score<Score>, "hmoe::routing::grouped: Score does not model hmoe::score (see hmoe/routing/score.hpp); "
                              "wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  grouped(Score inner, std::vector<std::size_t> group_sizes)
      : base(std::move(inner)), sizes_(std::move(group_sizes)), group_weight_(sizes_.size(), this->d_model()) {
    std::size_t experts = 0;
    for (std::size_t g = 0; g < sizes_.size(); ++g) {
      require(sizes_[g] >= 1, "grouped: group ", g, " is empty");
      experts += sizes_[g];
    }
    require(experts == this->size(), "grouped: the groups hold ", experts, " experts, there are ", this->size());
  }

  [[nodiscard]] std::size_t groups() const noexcept { return sizes_.size(); }
  /// The sizes of the groups.
  [[nodiscard]] std::string identity() const {
    std::string text = "groups of";
    for (const std::size_t size : sizes_)
      text.append(" ").append(std::to_string(size));
    return text;
  }
  [[nodiscard]] matrix_view<value_type> group_weight() noexcept { return group_weight_; }
  [[nodiscard]] matrix_view<const value_type> group_weight() const noexcept { return group_weight_; }

  /// Saved of a token: P(e | g).
  [[nodiscard]] std::size_t saved_per_token() const noexcept { return inner_.saved_per_token() + this->size(); }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
    static_cast<void>(per_group(memory, tokens));
    static_cast<void>(per_expert(memory, tokens));
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    inner_.forward(ctx, x, trace);
    auto u = per_group(&ctx.workspace(), x.rows());
    detail::project(ctx, x, group_weight(), u.view());
    const auto saved = trace.score_saved().column_block(inner_.saved_per_token(), this->size());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for_each_group([&](std::size_t g, std::size_t first, std::size_t size) {
        const vector_view<value_type> z = trace.logits().row(t).subview(first, size);
        if (std::ranges::all_of(z, [](value_type value) { return value == out_of_service; })) {
          std::ranges::fill(saved.row(t).subview(first, size), value_type(0));
          return;
        }
        softmax::forward(vector_view<const value_type>(z), saved.row(t).subview(first, size));
        value_type largest = z[0], sum = 0;
        for (const value_type value : z)
          largest = value > largest ? value : largest;
        for (const value_type value : z)
          sum += std::exp(value - largest);
        const value_type shift = u(t, g) - largest - std::log(sum);
        for (value_type& value : z)
          value += shift;
      });
    });
  }

  /// ∂L/∂u_g = Σ_{e∈g} ∂L/∂logits_e, ∂L/∂z_e = ∂L/∂logits_e − P(e | g) ∂L/∂u_g
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, grouped& gradients) const {
    auto d_u = per_group(&ctx.workspace(), x.rows());
    auto d_z = per_expert(&ctx.workspace(), x.rows());
    const auto saved = trace.score_saved().column_block(inner_.saved_per_token(), this->size());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for_each_group([&](std::size_t g, std::size_t first, std::size_t size) {
        value_type sum = 0;
        for (std::size_t e = first; e < first + size; ++e)
          sum += d_logits(t, e);
        d_u(t, g) = sum;
        for (std::size_t e = first; e < first + size; ++e)
          d_z(t, e) = d_logits(t, e) - saved(t, e) * sum;
      });
    });
    inner_.backward(ctx, x, trace, std::as_const(d_z).view(), dx, gradients.inner_);
    detail::project_backward(ctx, x, group_weight(), std::as_const(d_u).view(), dx, gradients.group_weight());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    inner_.visit_parameters(visit);
    visit(parameter_info{"router.group_weight"}, group_weight());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    inner_.initialize(key, stream, options);
    fill_normal(vector_view<value_type>(group_weight_.data(), group_weight_.size()), options.router_stddev, key,
                stream + 5);
  }

private:
  [[nodiscard]] matrix<value_type> per_group(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, groups(), memory);
  }
  [[nodiscard]] matrix<value_type> per_expert(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, this->size(), memory);
  }
  /// f(group, its first expert, its size)
  template <class F> void for_each_group(F&& f) const {
    std::size_t first = 0;
    for (std::size_t g = 0; g < sizes_.size(); ++g) {
      f(g, first, sizes_[g]);
      first += sizes_[g];
    }
  }

  static constexpr value_type out_of_service = -std::numeric_limits<value_type>::infinity();

  std::vector<std::size_t> sizes_;
  matrix<value_type> group_weight_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
