// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/zero_cost_bank.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

namespace detail {
/// The first h neurons of expert i of a bank, id of which is for messages, where they are.
template <class Value, std::size_t Lanes, class Bank>
[[nodiscard]] experts::ffn_tensors<Value, Lanes> first_neurons(Bank& bank, std::size_t i, std::size_t id,
                                                               std::size_t h) {
  auto& weights = bank.weights();
  require(h <= bank.width(i), "expert ", id, " shall run at width ", h, ", it has ", bank.width(i));
  experts::ffn_tensors<Value, Lanes> expert;
  for (std::size_t l = 0; l < Lanes; ++l) {
    expert.lanes[l] = weights.lane(i, l).row_block(0, h);
    if (weights.has_biases())
      expert.lane_biases[l] = weights.lane_bias(i, l).column_block(0, h);
  }
  expert.output = weights.output(i).column_block(0, h);
  expert.output_bias = weights.output_bias(i);
  return expert;
}
/// The first widths[ids[i]] neurons of each expert of a bank, on the bank's own memory; read only where Bank is const.
template <class Bank>
[[nodiscard]] std::remove_const_t<Bank> prefix_of(Bank& bank, const std::vector<std::size_t>& ids,
                                                  vector_view<const std::size_t> widths) {
  using T = typename Bank::value_type;
  using value = std::conditional_t<std::is_const_v<Bank>, const T, T>;
  constexpr std::size_t lanes = decltype(detail::lanes_of(bank.weights()))::value;
  std::vector<experts::ffn_tensors<value, lanes>> views;
  for (std::size_t i = 0; i < ids.size(); ++i)
    views.push_back(detail::first_neurons<value, lanes>(bank, i, ids[i], widths[ids[i]]));
  return detail::with_weights(bank, experts::ffn_weights<T, lanes>(std::move(views)));
}
template <class Set, class... Banks>
[[nodiscard]] expert_set<Banks...> prefixes_of(Set& set, const expert_set<Banks...>&,
                                               vector_view<const std::size_t> widths) {
  const auto view = [&](auto& bank, const std::vector<std::size_t>& ids) {
    if constexpr (neuron_bank<std::remove_cvref_t<decltype(bank)>>) {
      return detail::prefix_of(bank, ids, widths);
    } else if constexpr (requires { bank.prefix(widths); }) {
      std::vector<std::size_t> own;
      for (const std::size_t e : ids)
        own.push_back(widths[e]);
      return bank.prefix(vector_view<const std::size_t>(own.data(), own.size()));
    } else {
      return std::remove_cvref_t<decltype(bank)>(bank);
    }
  };
  return [&]<std::size_t... B>(std::index_sequence<B...>) {
    return expert_set<Banks...>(set.ids(), view(set.template bank<B>(), set.ids().of_bank[B])...);
  }(std::index_sequence_for<Banks...>{});
}
template <class... Banks> [[nodiscard]] consteval bool only_neurons(const expert_set<Banks...>*) {
  return ((neuron_bank<Banks> || std::derived_from<Banks, experts::zero_cost_bank<typename Banks::value_type>>) && ...);
}
} // namespace detail

/// A layer at smaller widths: the first neurons of each expert, where order_by_importance has put the important ones
/// (Matryoshka; FlexMoE, arXiv 2606.27866). It has no weights of its own: its experts are views of the layer's, which
/// must outlive it and stay where it is. Make one for each width that is wanted, once; which of them runs a pass is
/// then free for each call. Making one takes memory for the views (about 150 bytes per expert), passes take no more
/// than those of the layer. Changed weights of the layer, by an optimiser, are seen at once. Packed banks
/// (simd::pack) run at the widths that packed_bank::prefix allows. Experts without neurons (constant_bank,
/// low_rank_bank, any_expert) are copied as they were.
///   ordered by_heapr = compress::order_by_importance(layer, importance);
///   nested half{by_heapr.layer, compress::widths_within(by_heapr.layer, by_heapr.importance, sums, {.share = 0.5})};
///   half.forward(ctx, x, y);
/// Outputs, weight gradients and router gradients have the bits of the layer that is cut to these widths (cut()); dx
/// has them for mlp_bank, and is equal up to rounding where a backend rounds between the lanes of a glu_bank.
template <class Layer> class nested {
public:
  using value_type = typename Layer::value_type;
  using experts_type = typename Layer::experts_type;
  using gradients_type = typename Layer::gradients_type;

  /// [N] widths, each at most the expert's; those of experts without neurons are not looked at.
  nested(const Layer& layer, std::vector<std::size_t> widths)
      : layer_(&layer), widths_(checked(layer, std::move(widths))),
        experts_(detail::prefixes_of(layer.experts(), layer.experts(), view_of(widths_))) {
    for (std::size_t e = 0; e < widths_.size(); ++e)
      widths_[e] = experts_.width(e);
  }
  nested(const Layer&&, std::vector<std::size_t>) = delete;
  nested(const nested&) = delete; // a copy of a view of weights would own weights: cut() says so
  nested(nested&&) noexcept = default;
  nested& operator=(const nested&) = delete;
  nested& operator=(nested&&) noexcept = default;
  ~nested() = default;

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return experts_.d_model(); }
  [[nodiscard]] vector_view<const std::size_t> widths() const noexcept { return view_of(widths_); }
  [[nodiscard]] const experts_type& experts() const noexcept { return experts_; }
  /// The same layer with weights of its own.
  [[nodiscard]] Layer cut() const {
    static_assert(Layer::trainable,
                  "hmoe::compress::nested: cut: copies of packed experts at smaller widths are views, "
                  "too: pack the cut of the layer that was packed");
    return layer_->with_experts(experts_);
  }

  /// As those of moe_layer. Any tape of the layer will do.
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y,
               const routing_inputs<value_type>& inputs = {}) const {
    layer_->forward_with(ctx, experts_, x, y, inputs);
  }
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y, tape<value_type>& tape,
               const routing_inputs<value_type>& inputs = {}) const {
    layer_->forward_with(ctx, experts_, x, y, tape, inputs);
  }

  /// The part of the layer's gradients that belongs to these neurons, as views: others stay as they are.
  class gradients_part {
  public:
    explicit gradients_part(gradients_type& all, vector_view<const std::size_t> widths)
        : experts_(detail::prefixes_of(all.experts, all.experts, widths)), router_(&all.router) {}
    gradients_part(const gradients_part&) = delete;
    gradients_part(gradients_part&&) noexcept = default;
    gradients_part& operator=(const gradients_part&) = delete;
    gradients_part& operator=(gradients_part&&) noexcept = default;
    ~gradients_part() = default;

  private:
    friend nested;
    experts_type experts_;
    typename Layer::router_type* router_;
  };
  [[nodiscard]] gradients_part part_of(gradients_type& gradients) const {
    static_assert(detail::only_neurons(static_cast<const experts_type*>(nullptr)),
                  "hmoe::compress::nested: a bank of this layer has parameters and no neurons (constant_bank, "
                  "low_rank_bank, any_expert): train it in the layer itself, nested widths are for glu_bank, "
                  "gpt_oss_glu_bank and mlp_bank");
    require(gradients.experts.size() == size() && gradients.experts.d_model() == d_model(),
            "the gradients are of a layer with ", gradients.experts.size(), " experts and d_model ",
            gradients.experts.d_model(), ", this one has ", size(), " and ", d_model());
    return gradients_part(gradients, view_of(widths_));
  }
  template <execution_context Context>
  void backward(const Context& ctx, tape<value_type>& tape, matrix_view<const value_type> dy,
                matrix_view<value_type> dx, gradients_part& gradients) const {
    layer_->backward_with(ctx, experts_, tape, dy, dx, gradients.experts_, *gradients.router_);
  }
  template <execution_context Context>
  void backward(const Context& ctx, tape<value_type>& tape, matrix_view<const value_type> dy,
                matrix_view<value_type> dx, matrix_view<value_type> d_router_x, gradients_part& gradients) const {
    layer_->backward_with(ctx, experts_, tape, dy, dx, gradients.experts_, *gradients.router_, d_router_x);
  }

  /// For objective::evaluate, with these widths.
  [[nodiscard]] routed_batch<value_type> routing(tape<value_type>& tape) const {
    routed_batch<value_type> batch = layer_->routing(tape);
    return {batch.trace, batch.assigned, widths().subview(0, layer_->router().routed())};
  }
  /// Bytes of workspace that suffice for every pass over up to `tokens` tokens at these widths.
  template <execution_context Context>
  [[nodiscard]] std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool some_padding = false) const {
    return layer_->workspace_bytes_with(ctx, experts_, tokens, some_padding);
  }

private:
  static vector_view<const std::size_t> view_of(const std::vector<std::size_t>& widths) noexcept {
    return {widths.data(), widths.size()};
  }
  static std::vector<std::size_t> checked(const Layer& layer, std::vector<std::size_t> widths) {
    require(widths.size() == layer.size(), widths.size(), " widths for a layer of ", layer.size(), " experts");
    return widths;
  }

  const Layer* layer_;
  std::vector<std::size_t> widths_;
  experts_type experts_;
};

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
