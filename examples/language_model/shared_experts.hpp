// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/no_shared.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>

#include "variant.hpp"

#include <utility>
#include <variant>

namespace language_model {

/// The library's policies for shared experts behind one type, chosen at run time: they differ in a few operations per
/// token, and every router would otherwise be compiled once for each.
template <class T> class shared_experts {
public:
  shared_experts(const variant& v, std::size_t d_model) {
    if (v.shared.kind == "always-on")
      policy_ = hmoe::routing::always_on{v.shared.widths.size()};
    else if (v.shared.kind == "sigmoid-gated")
      policy_ = hmoe::routing::sigmoid_gated<T>(d_model, v.shared.widths.size());
  }

  std::size_t size() const {
    return std::visit([](const auto& p) { return p.size(); }, policy_);
  }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    std::visit([&](const auto& p) { hmoe::routing::lay_out_part(p, memory, tokens); }, policy_);
  }
  void forward(hmoe::vector_view<const T> x, hmoe::vector_view<T> weights) const {
    std::visit([&](const auto& p) { p.forward(x, weights); }, policy_);
  }
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const T> x, const hmoe::assignment<T>& assigned,
                hmoe::vector_view<const T> d_weights, hmoe::matrix_view<T> dx, shared_experts& gradients) const {
    const auto run = [&]<class Policy>(const Policy& p) {
      p.backward(ctx, x, assigned, d_weights, dx, std::get<Policy>(gradients.policy_));
    };
    std::visit(run, policy_);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    std::visit([&](auto& p) { p.visit_parameters(visit); }, policy_);
  }
  void initialize(hmoe::seed key, std::uint64_t stream, const hmoe::initialization& options) {
    std::visit([&](auto& p) { p.initialize(key, stream, options); }, policy_);
  }

private:
  std::variant<hmoe::routing::no_shared, hmoe::routing::always_on, hmoe::routing::sigmoid_gated<T>> policy_;
};

} // namespace language_model
