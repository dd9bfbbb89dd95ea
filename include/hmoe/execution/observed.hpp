// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <cstddef>

/// Contexts and backends that complete or relabel the events of what they are given to. Where there is no probe, the
/// functions return what they are given.
namespace hmoe::probes {

/// The context `like` with place(event) before its probe. The other context must outlive it.
template <execution_context Context, class Place> class placed_context {
public:
  using backend_type = typename Context::backend_type;
  using executor_type = typename Context::executor_type;
  using workspace_scope = typename Context::workspace_scope;
  using probe_type = typename Context::probe_type;

  placed_context(const Context& like, Place place) noexcept : like_(like), place_(place) {}

  [[nodiscard]] const backend_type& backend() const noexcept { return like_.backend(); }
  [[nodiscard]] const executor_type& executor() const noexcept { return like_.executor(); }
  [[nodiscard]] decltype(auto) workspace() const noexcept { return like_.workspace(); }
  [[nodiscard]] probe_type& probe() const noexcept { return like_.probe(); }
  [[nodiscard]] event place(const event& e) const noexcept {
    if constexpr (requires { like_.place(e); })
      return like_.place(place_(e));
    else
      return place_(e);
  }

private:
  const Context& like_;
  Place place_;
};

/// All that workers do is one stage; the event around it has the numbers.
struct part_of {
  probes::stage stage;
  probes::direction direction;

  [[nodiscard]] event operator()(const event& e) const noexcept {
    return {stage, direction, 0, 0, 0, no_expert, e.worker};
  }
};
/// A bank numbers its experts from 0; ids[i] is the layer's id of its expert i.
struct renumbered {
  vector_view<const std::size_t> ids;

  [[nodiscard]] event operator()(event e) const noexcept {
    if (e.expert != no_expert)
      e.expert = ids[e.expert];
    return e;
  }
};
template <execution_context Context, class Place>
[[nodiscard]] decltype(auto) placed(const Context& ctx, const Place& place) noexcept {
  if constexpr (observed<Context>)
    return placed_context<Context, Place>(ctx, place);
  else
    return (ctx);
}

/// A backend that also tells the probe what one expert does on one worker, for banks that see no context.
template <class Backend, class Probe> class observed_math : public Backend {
public:
  using probe_type = Probe;

  observed_math(const Backend& math, Probe& probe, std::size_t expert, std::size_t worker)
      : Backend(math), probe_(probe), expert_(expert), worker_(worker) {}

  [[nodiscard]] Probe& probe() const noexcept { return probe_; }
  [[nodiscard]] event place(event e) const noexcept {
    e.expert = expert_;
    e.worker = worker_;
    return e;
  }

private:
  Probe& probe_;
  std::size_t expert_, worker_;
};
/// `math`, the backend of ctx or one that divides its products, for an expert that a worker computes.
template <execution_context Context, class Backend>
[[nodiscard]] decltype(auto) math_for(const Context& ctx, const Backend& math, std::size_t expert, std::size_t worker) {
  if constexpr (observed<Context>)
    return observed_math<Backend, typename Context::probe_type>(math, ctx.probe(), expert, worker);
  else
    return (math);
}

} // namespace hmoe::probes

#include <hmoe/core/macros_on.hpp>
