// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/eigen.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

#include "feed_forward.hpp"
#include "model_shape.hpp"
#include "variant.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace language_model {

/// A layer of hmoe with SwiGLU experts and any router, behind the decoder's interface.
template <class T, class Router> class moe_feed_forward final : public feed_forward<T> {
public:
  moe_feed_forward(const variant& v, const Router& router, std::size_t max_tokens, std::size_t threads)
      : layer_(hmoe::expert_set(bank(router.d_model(), v.widths)), router), gradients_(layer_.make_gradients()),
        tape_(layer_.make_tape(max_tokens)), context_(hmoe::backends::eigen{}, hmoe::executors::openmp(threads)),
        // Losses that a variant does not have count with 0.
        objective_(hmoe::losses::load_balance{.coefficient = v.coefficient("load-balance")},
                   hmoe::losses::parameter_penalty{.coefficient = v.coefficient("parameter-penalty")},
                   hmoe::losses::router_entropy{.coefficient = v.coefficient("router-entropy")},
                   hmoe::losses::z{.coefficient = v.coefficient("z")}) {}

  void initialize(hmoe::seed seed, double output_gain) override {
    layer_.initialize(seed, {.output_gain = output_gain, .router_stddev = 0.02});
  }
  void forward(const matrix<T>& x, matrix<T>& y) override { layer_.forward(context_, x, y, tape_); }
  double add_auxiliary_losses() override { return objective_.evaluate(layer_, tape_).total(); }
  void backward(const matrix<T>& dy, matrix<T>& dx) override { layer_.backward(context_, tape_, dy, dx, gradients_); }
  void append_parameters(std::vector<hmoe::parameter<T>>& list, const std::string& prefix) override {
    layer_.append_parameters(gradients_, list, prefix);
  }
  const hmoe::assignment<T>& assignment() const override { return tape_.assignment(); }
  std::span<const std::size_t> widths() const override { return {layer_.widths().data(), layer_.size()}; }

private:
  using bank = hmoe::experts::glu_bank<T, hmoe::experts::silu>;
  using layer = hmoe::moe_layer<hmoe::expert_set<bank>, Router>;

  layer layer_;
  typename layer::gradients_type gradients_;
  hmoe::tape<T> tape_;
  hmoe::context<hmoe::backends::eigen, hmoe::executors::openmp> context_;
  hmoe::objective<hmoe::losses::load_balance, hmoe::losses::parameter_penalty, hmoe::losses::router_entropy,
                  hmoe::losses::z>
      objective_;
};

/// The layer that a variant describes; a further router is a further line here.
template <class T>
std::unique_ptr<feed_forward<T>> make_feed_forward(const variant& v, std::size_t d_model, std::size_t max_tokens,
                                                   std::size_t threads) {
  const auto make = [&](const auto& router) -> std::unique_ptr<feed_forward<T>> {
    return std::make_unique<moe_feed_forward<T, std::decay_t<decltype(router)>>>(v, router, max_tokens, threads);
  };
  const std::size_t experts = v.widths.size();
  if (v.router.kind == "top-p")
    return make(hmoe::routing::top_p_router<T>(d_model, experts, v.router.value));
  return make(hmoe::routing::top_k_router<T>(d_model, experts, static_cast<std::size_t>(v.router.value)));
}

/// One layer for each block of a decoder that works on `sequences` windows at a time.
template <class T>
std::vector<std::unique_ptr<feed_forward<T>>> make_feed_forwards(const variant& v, const model_shape& shape,
                                                                 std::size_t sequences, std::size_t threads) {
  std::vector<std::unique_ptr<feed_forward<T>>> layers;
  layers.reserve(shape.blocks);
  for (std::size_t b = 0; b < shape.blocks; ++b) {
    layers.push_back(make_feed_forward<T>(v, shape.d_model, sequences * shape.context, threads));
  }
  return layers;
}

} // namespace language_model
