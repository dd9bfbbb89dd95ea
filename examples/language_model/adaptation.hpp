// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>
#include <hmoe/routing/controllers/top_p_controller.hpp>
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>

#include "layer_router.hpp"

#include <span>
#include <utility>
#include <vector>

namespace language_model {

/// What moves a router between steps, by a rule instead of gradients.
template <class T> class adaptation {
public:
  adaptation() = default;
  adaptation(const adaptation&) = delete;
  adaptation& operator=(const adaptation&) = delete;
  virtual ~adaptation() = default;

  /// From what the step's batch was routed to.
  virtual void after_step(layer_router<T>& router, const hmoe::router_trace<T>& trace,
                          std::span<const double> flops_per_token) = 0;
  /// What a checkpoint must keep besides the parameters.
  virtual std::vector<double> state() const = 0;
  virtual void restore(layer_router<T>& router, std::span<const double> state) = 0;
};

/// A rule for routers of type Router: after_step(router, trace, flops_per_token), state() and restore(router, state).
template <class Router, class Rule> class adaptation_by final : public adaptation<typename Router::value_type> {
public:
  using T = typename Router::value_type;
  explicit adaptation_by(Rule rule) : rule_(std::move(rule)) {}

  void after_step(layer_router<T>& router, const hmoe::router_trace<T>& trace,
                  std::span<const double> flops_per_token) override {
    rule_.after_step(*router.template get_if<Router>(), trace, flops_per_token);
  }
  std::vector<double> state() const override { return rule_.state(); }
  void restore(layer_router<T>& router, std::span<const double> state) override {
    rule_.restore(*router.template get_if<Router>(), state);
  }

private:
  Rule rule_;
};

struct no_adaptation {
  static void after_step(auto&, const auto&, std::span<const double>) {}
  static std::vector<double> state() { return {}; }
  static void restore(auto&, std::span<const double>) {}
};

/// Moves the bias of routing::biased. The bias itself is among the parameters.
struct bias_adaptation {
  double rate = 1e-3;
  bool proportional = false;
  bool in_flops = false;

  template <class Router, class T>
  void after_step(Router& router, const hmoe::router_trace<T>& trace, std::span<const double> flops_per_token) const {
    std::vector<double> load(trace.expert_count(), 0.0);
    const auto counts = trace.tokens_per_expert();
    if (in_flops)
      hmoe::routing::load_in_flops(counts, {flops_per_token.data(), flops_per_token.size()}, load);
    else
      hmoe::routing::load_in_tokens(counts, load);
    const auto bias = router.selection_policy().bias();
    if (proportional)
      hmoe::routing::update_bias_in_proportion<T>(bias, load, rate, 1.0 / static_cast<double>(load.size()));
    else
      hmoe::routing::update_bias_by_sign<T>(bias, load, rate);
  }
  static std::vector<double> state() { return {}; }
  static void restore(auto&, std::span<const double>) {}
};

/// Moves the p of top_p so that tokens get the wanted number of experts.
struct top_p_adaptation {
  hmoe::routing::top_p_controller controller;

  void after_step(auto& router, const auto& trace, std::span<const double>) {
    router.selection_policy().p = controller.update(trace);
  }
  std::vector<double> state() const { return {controller.p(), controller.sum()}; }
  void restore(auto& router, std::span<const double> state) {
    controller.restore(state[0], state[1]);
    router.selection_policy().p = controller.p();
  }
};

} // namespace language_model
