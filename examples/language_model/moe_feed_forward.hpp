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
#include "variant.hpp"

#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// A layer of hmoe with SwiGLU experts, the shared ones last, and any router, behind the decoder's interface.
template <class T> class moe_feed_forward final : public feed_forward<T> {
public:
  moe_feed_forward(const layer_setup& s, const layer_router<T>& router, std::unique_ptr<adaptation<T>> rule)
      : layer_(hmoe::expert_set(bank(router.d_model(), s.what.all_widths())), router),
        gradients_(layer_.make_gradients()), tape_(layer_.make_tape(s.max_tokens)),
        context_(hmoe::backends::simd<>{}, hmoe::executors::openmp(s.threads)), losses_(s.what, s.sparsity),
        adaptation_(std::move(rule)), sparsity_(s.last ? s.sparsity : nullptr) {
    const auto cost = layer_.cost();
    for (std::size_t e = 0; e < router.routed(); ++e)
      flops_per_token_.push_back(cost.experts[e].flops_per_token);
    // A router with one expert decides nothing and is not counted.
    if (layer_.size() > 1)
      router_weights_ = static_cast<std::size_t>(std::llround(cost.router_flops_per_token / 2));
  }

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
  void backward(const matrix<T>& dy, matrix<T>& dx) override { layer_.backward(context_, tape_, dy, dx, gradients_); }
  void after_step() override {
    adaptation_->after_step(layer_.router(), std::as_const(tape_).trace(), flops_per_token_);
    if (sparsity_)
      sparsity_->update();
  }

  void append_parameters(std::vector<hmoe::parameter<T>>& list, const std::string& prefix) override {
    layer_.append_parameters(gradients_, list, prefix);
  }
  std::vector<double> state() const override {
    return sparsity_ ? std::vector<double>{sparsity_->lambda()} : adaptation_->state();
  }
  void restore(std::span<const double> state) override {
    const std::size_t size = this->state().size();
    hmoe::require(state.size() == size, "a layer's state has ", state.size(), " values where ", size, " are expected");
    if (sparsity_)
      sparsity_->set_lambda(state[0]);
    else
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

private:
  using bank = hmoe::experts::glu_bank<T, hmoe::experts::silu>;
  using layer = hmoe::moe_layer<hmoe::expert_set<bank>, layer_router<T>>;

  layer layer_;
  typename layer::gradients_type gradients_;
  hmoe::tape<T> tape_;
  layer_context context_;
  auxiliary_losses<T> losses_;
  std::unique_ptr<adaptation<T>> adaptation_;
  std::shared_ptr<hmoe::losses::sparsity_controller> sparsity_; ///< in the last layer, which moves it for all
  std::vector<double> flops_per_token_;                         ///< of each routed expert
  std::size_t router_weights_ = 0;
};

template <class T>
std::unique_ptr<feed_forward<T>> make_moe_feed_forward(const layer_setup& s, const layer_router<T>& router,
                                                       std::unique_ptr<adaptation<T>> rule) {
  return std::make_unique<moe_feed_forward<T>>(s, router, std::move(rule));
}

} // namespace language_model
