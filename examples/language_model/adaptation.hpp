// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

// What moves a router between steps, by rules instead of gradients:
//   after_step(router, trace, flops_per_token)   from what the step's batch was routed to
//   state(), restore(router, state)              what a checkpoint must keep besides the parameters

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
