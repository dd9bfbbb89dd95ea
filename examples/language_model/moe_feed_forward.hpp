// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

#include "adaptation.hpp"
#include "auxiliary_losses.hpp"
#include "feed_forward.hpp"
#include "feed_forwards.hpp"
#include "layer_router.hpp"
#include "process_group.hpp"
#include "variant.hpp"

#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

template <class T> using swiglu_bank = hmoe::experts::glu_bank<T, hmoe::experts::silu>;

/// A layer of hmoe with SwiGLU experts, the shared ones last, and any router, behind the decoder's interface.
template <class T, class Experts = hmoe::expert_set<swiglu_bank<T>>, class Dispatch = hmoe::dispatch::sorted<>>
class moe_feed_forward : public feed_forward<T> {
public:
  using layer_type = hmoe::moe_layer<Experts, layer_router<T>, Dispatch>;
  /// Sees each backward pass before it runs: f(layer, tape, context, dy).
  using watcher = std::function<void(const layer_type&, hmoe::tape<T>&, const layer_context&, const matrix<T>&)>;

  moe_feed_forward(const layer_setup& s, const layer_router<T>& router, std::unique_ptr<adaptation<T>> rule,
                   Dispatch dispatch = {})
      : moe_feed_forward(
            layer_type(Experts(swiglu_bank<T>(router.d_model(), s.what.all_widths())), router, std::move(dispatch)),
            s.max_tokens, s.threads) {
    losses_ = auxiliary_losses<T>(s.what, s.sparsity);
    adaptation_ = std::move(rule);
    sparsity_ = s.last ? s.sparsity : nullptr;
  }
  /// A layer that was made of a trained one: without auxiliary losses and rules of its router.
  moe_feed_forward(layer_type layer, std::size_t max_tokens, std::size_t threads)
      : layer_(std::move(layer)), gradients_(layer_.make_gradients()), tape_(layer_.make_tape(max_tokens)),
        context_(hmoe::backends::simd<>{}, hmoe::executors::openmp(threads)) {
    const auto cost = layer_.cost();
    for (std::size_t e = 0; e < layer_.router().routed(); ++e)
      flops_per_token_.push_back(cost.experts[e].flops_per_token);
    // A router with one expert decides nothing and is not counted.
    if (layer_.size() > 1)
      router_weights_ = static_cast<std::size_t>(std::llround(cost.router_flops_per_token / 2));
  }

  const layer_type& layer() const { return layer_; }
  void watch(watcher f) { watcher_ = std::move(f); }

  void initialize(hmoe::seed seed, double output_gain) override {
    layer_.initialize(seed, {.output_gain = output_gain, .router_stddev = 0.02});
  }
  void forward(const matrix<T>& x, matrix<T>& y, const hmoe::routing_inputs<T>& inputs) override {
    layer_.forward(context_, x, y, tape_, inputs);
  }
  double add_auxiliary_losses() override {
    auto batch = layer_.routing(tape_);
    return losses_.evaluate(batch);
  }
  void backward(const matrix<T>& dy, matrix<T>& dx) override {
    if (watcher_)
      watcher_(layer_, tape_, context_, dy);
    layer_.backward(context_, tape_, dy, dx, gradients_);
  }
  void after_step() override { follow(std::as_const(tape_).trace()); }

  void append_parameters(std::vector<hmoe::parameter<T>>& list, const std::string& prefix) override {
    layer_.append_parameters(gradients_, list, prefix);
  }
  std::vector<double> state() const override {
    if (sparsity_)
      return {sparsity_->lambda()};
    return adaptation_ ? adaptation_->state() : std::vector<double>();
  }
  void restore(std::span<const double> state) override {
    const std::size_t size = this->state().size();
    hmoe::require(state.size() == size, "a layer's state has ", state.size(), " values where ", size, " are expected");
    if (sparsity_)
      sparsity_->set_lambda(state[0]);
    else if (adaptation_)
      adaptation_->restore(layer_.router(), state);
  }

  const hmoe::assignment<T>& assignment() const override { return tape_.assignment(); }
  hmoe::io::routing_log_record<T> routing() const override {
    hmoe::io::routing_log_record<T> record;
    record.experts = layer_.size();
    record.assigned = tape_.assignment();
    record.weights_on_input = tape_.weights_on_input();
    return record;
  }
  hmoe::router_trace<T>& trace() override { return tape_.trace(); }
  const hmoe::router_trace<T>& trace() const override { return tape_.trace(); }
  std::size_t routed() const override { return layer_.router().routed(); }
  std::span<const std::size_t> widths() const override { return {layer_.widths().data(), layer_.size()}; }
  std::size_t router_weights() const override { return router_weights_; }

protected:
  /// Moves what has a rule of its own by what this batch was routed to.
  void follow(const hmoe::router_trace<T>& batch) {
    if (adaptation_)
      adaptation_->after_step(layer_.router(), batch, flops_per_token_);
    if (sparsity_)
      sparsity_->update();
  }

  layer_type layer_;
  typename layer_type::gradients_type gradients_;
  hmoe::tape<T> tape_;
  auxiliary_losses<T> losses_;

private:
  layer_context context_;
  std::unique_ptr<adaptation<T>> adaptation_;
  std::shared_ptr<hmoe::losses::sparsity_controller> sparsity_; ///< in the last layer, which moves it for all
  std::vector<double> flops_per_token_;                         ///< of each routed expert
  std::size_t router_weights_ = 0;
  watcher watcher_;
};

template <class T>
std::unique_ptr<feed_forward<T>> make_moe_feed_forward(const layer_setup& s, const layer_router<T>& router,
                                                       std::unique_ptr<adaptation<T>> rule) {
  if constexpr (std::same_as<T, float>)
    if (s.group != nullptr)
      return s.group->make_layer(s, router, std::move(rule));
  return std::make_unique<moe_feed_forward<T>>(s, router, std::move(rule));
}

} // namespace language_model
