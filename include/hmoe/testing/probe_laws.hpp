// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>
#include <hmoe/testing/reversed_threads.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// A probe that keeps all events, for tests of backends, dispatch strategies, routers and banks. It allocates.
class recording_probe {
public:
  struct call {
    probes::event event;
    bool begins;
    std::size_t order; ///< among the calls of all workers
  };

  void prepare(std::size_t workers) { calls_.resize(workers); }
  void begin(const probes::event& e) noexcept { add(e, true); }
  void end(const probes::event& e) noexcept { add(e, false); }

  /// Of each worker, in order.
  [[nodiscard]] const std::vector<std::vector<call>>& calls() const noexcept { return calls_; }
  /// The sums of all events of a stage and a direction, of one expert or of all.
  [[nodiscard]] probes::event sum(probes::stage stage, probes::direction direction,
                                  std::size_t expert = probes::no_expert) const {
    probes::event result(stage, direction);
    for (const auto& of_worker : calls_)
      for (const call& c : of_worker)
        if (c.begins && c.event.stage == stage && c.event.direction == direction &&
            (expert == probes::no_expert || c.event.expert == expert)) {
          result.rows += c.event.rows;
          result.bytes += c.event.bytes;
          result.flops += c.event.flops;
        }
    return result;
  }
  [[nodiscard]] double expert_flops(probes::direction direction, std::size_t expert = probes::no_expert) const {
    double all = 0;
    for (const auto s : {probes::stage::gate_up, probes::stage::activation, probes::stage::down, probes::stage::expert})
      all += sum(s, direction, expert).flops;
    return all;
  }

private:
  void add(const probes::event& e, bool begins) noexcept {
    if (e.worker < calls_.size())
      calls_[e.worker].push_back({e, begins, (*order_)++});
  }
  std::vector<std::vector<call>> calls_;
  std::unique_ptr<std::atomic<std::size_t>> order_ = std::make_unique<std::atomic<std::size_t>>(0);
};

namespace detail {
[[nodiscard]] inline bool same_event(const probes::event& a, const probes::event& b) noexcept {
  return a.stage == b.stage && a.direction == b.direction && a.rows == b.rows && a.bytes == b.bytes &&
         a.flops == b.flops && a.expert == b.expert && a.worker == b.worker;
}
[[nodiscard]] inline bool about(double a, double b) noexcept {
  return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b));
}
/// For each worker: what begins last ends first. The passes of worker 0 contain all other events.
inline void check_nesting(const recording_probe& probe, report& found) {
  std::vector<std::pair<std::size_t, std::size_t>> passes;
  for (std::size_t w = 0; w < probe.calls().size(); ++w) {
    std::vector<recording_probe::call> open;
    for (const recording_probe::call& c : probe.calls()[w]) {
      if (c.begins) {
        open.push_back(c);
        continue;
      }
      const bool fits = !open.empty() && same_event(open.back().event, c.event);
      if (!found.expect(fits, "for a worker, what begins last ends first", "worker ", w, " ends ",
                        probes::name_of(c.event.stage), open.empty() ? ", which did not begin" : " inside of ",
                        open.empty() ? "" : probes::name_of(open.back().event.stage)))
        return;
      if (c.event.stage == probes::stage::pass)
        passes.emplace_back(open.back().order, c.order);
      open.pop_back();
    }
    found.expect(open.empty(), "what begins ends", "worker ", w, " leaves ", open.size(), " stages open");
  }
  for (const auto& calls : probe.calls())
    for (const recording_probe::call& c : calls) {
      bool inside = false;
      for (const auto& [first, last] : passes)
        inside = inside || (first <= c.order && c.order <= last);
      found.expect(inside, "all stages lie inside a pass", probes::name_of(c.event.stage), " of worker ",
                   c.event.worker, " does not");
    }
}
} // namespace detail

/// Whether the events of a dropless layer's passes nest and add up to layer.cost(): for authors of backends, dispatch
/// strategies, routers and banks that tell their stages. `layer` is of float or double, and trainable or not.
template <class Layer, class Backend, class Executor>
[[nodiscard]] report check_stages(const Layer& layer, Backend backend, Executor executor, std::size_t tokens = 200) {
  using T = typename Layer::value_type;
  using enum probes::direction;
  report found;
  const auto x_values = random_values<T>(tokens * layer.d_model(), 1);
  matrix<T> x(tokens, layer.d_model()), y(tokens, layer.d_model()), dx(tokens, layer.d_model());
  for (std::size_t i = 0; i < x_values.size(); ++i)
    x.data()[i] = x_values[i];
  const context ctx{std::move(backend), std::move(executor), recording_probe{}};
  auto tape = layer.make_tape(tokens);
  layer.forward(ctx, std::as_const(x).view(), y.view(), tape);
  if constexpr (Layer::trainable) {
    auto gradients = layer.make_gradients();
    layer.backward(ctx, tape, std::as_const(y).view(), dx.view(), gradients);
  }
  const recording_probe& probe = ctx.probe();
  detail::check_nesting(probe, found);

  const layer_cost cost = layer.cost();
  std::vector<std::size_t> rows(layer.size());
  for (const index_t e : tape.assignment().experts())
    ++rows[e];
  for (const probes::direction direction : {forward, backward}) {
    const bool back = direction == backward;
    if (back && !Layer::trainable)
      continue;
    const double passes = back ? 2 : 1;
    const char* name = back ? " of the backward pass" : " of the forward pass";
    const probes::event pass = probe.sum(probes::stage::pass, direction);
    found.expect(pass.rows == tokens, "a pass has the rows of its batch", pass.rows, " rows", name, " for ", tokens,
                 " tokens");
    const probes::event route = probe.sum(probes::stage::route, direction);
    found.expect(route.rows == tokens, "all tokens are routed once", route.rows, " rows", name, " for ", tokens,
                 " tokens");
    const double router = passes * cost.router_flops_per_token * static_cast<double>(tokens);
    found.expect(detail::about(route.flops, router), "the router's FLOPs add up", route.flops, name, ", cost() says ",
                 router);
    double all = 0;
    for (std::size_t e = 0; e < layer.size(); ++e) {
      const double expected = passes * cost.experts[e].flops_per_token * static_cast<double>(rows[e]);
      all += expected;
      const double told = probe.expert_flops(direction, e);
      found.expect(detail::about(told, expected), "an expert's FLOPs add up", told, name, " of expert ", e,
                   ", cost() says ", expected);
      for (const probes::stage s : {probes::stage::gate_up, probes::stage::down}) {
        const probes::event of_stage = probe.sum(s, direction, e);
        found.expect(of_stage.flops == 0 || of_stage.rows == rows[e], "an expert's rows add up", of_stage.rows,
                     " rows in ", probes::name_of(s), name, " of expert ", e, ", which has ", rows[e]);
      }
    }
    const double told = probe.expert_flops(direction);
    found.expect(detail::about(told, all), "the experts' FLOPs add up", told, name, ", cost() says ", all);
  }
  return found;
}

/// Whether a probe leaves the passes as they are: the same bits with and without it, on several threads, and again
/// after it was moved. `probe` is left as after these passes, for a look at what it has.
template <hmoe::probe Probe> [[nodiscard]] report check_probe(Probe& probe) {
  report found;
  constexpr std::size_t tokens = 150, d_model = 6;
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(d_model, std::vector<std::size_t>{3, 8, 1, 5})},
                  routing::top_k_router<float>{d_model, 4, 2}, dispatch::sorted{}};
  layer.initialize(seed{11});
  const auto values = random_values<float>(tokens * d_model, 5);
  const auto run = [&](const auto& ctx) {
    matrix<float> x(tokens, d_model), y(tokens, d_model), dx(tokens, d_model);
    std::copy(values.begin(), values.end(), x.data());
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, std::as_const(x).view(), y.view(), tape);
    layer.backward(ctx, tape, std::as_const(y).view(), dx.view(), gradients);
    std::vector<float> all(y.data(), y.data() + y.size());
    all.insert(all.end(), dx.data(), dx.data() + dx.size());
    return all;
  };
  const auto expected = run(context{backends::reference{}, reversed_threads(3)});
  found.expect_no_throw("passes end as they do without the probe", [&] {
    context first{backends::reference{}, reversed_threads(3), std::move(probe)};
    found.expect(same_bits(run(first), expected), "results have the same bits with and without the probe",
                 "those of a layer of 4 experts differ");
    const context second = std::move(first);
    found.expect(same_bits(run(second), expected), "results have the same bits with and without the probe",
                 "those after it was moved differ");
    probe = std::move(second.probe());
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
