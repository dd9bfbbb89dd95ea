// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/owned.hpp>
#include <hmoe/execution/backend.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/workspace.hpp>

#include <concepts>
#include <memory_resource>
#include <type_traits>
#include <utility>

namespace hmoe {

/// Everything that a pass needs in addition to its data: a backend, an executor and scratch memory; and, where one is
/// given, a probe that is told when each stage begins and ends (docs/profiling.md).
/// Nothing is global. One context serves one calling thread at a time (its workspace is in use during a pass).
template <class Backend, class Executor = executors::serial, class Probe = probes::none> class context {
  static_assert(backend<Backend>, "hmoe::context: Backend does not model hmoe::backend: it lacks multiply_transposed, "
                                  "multiply, accumulate or accumulate_transposed for float or double "
                                  "(see hmoe/core/products.hpp); pass for instance backends::reference{}");
  static_assert(!std::is_final_v<Backend>, "hmoe::context: Backend is final: hmoe inherits from a backend to ask which "
                                           "operations it has and to share its products among threads; drop `final`");
  static_assert(executor<Executor>, "hmoe::context: Executor does not model hmoe::executor: it needs concurrency() and "
                                    "for_each(count, task) const; pass for instance executors::serial{}");
  static_assert(hmoe::probe<Probe>, "hmoe::context: Probe does not model hmoe::probe: it needs begin(event) and "
                                    "end(event), both noexcept, and can be moved (see hmoe/execution/probe.hpp); pass "
                                    "for instance probes::stages{}, or none");

public:
  using backend_type = Backend;
  using executor_type = Executor;
  using probe_type = Probe;
  using workspace_scope = hmoe::workspace::scope;

  /// With a workspace of its own, which grows as passes need it.
  explicit context(Backend backend = {}, Executor executor = {})
    requires std::same_as<Probe, probes::none>
      : backend_(std::move(backend)), executor_(std::move(executor)), owned_(new hmoe::workspace),
        workspace_(owned_.get()) {}
  context(Backend backend, Executor executor, Probe probe)
      : backend_(std::move(backend)), executor_(std::move(executor)), owned_(new hmoe::workspace),
        workspace_(owned_.get()), probe_(std::move(probe)) {
    prepare_probe();
  }
  /// With the caller's workspace, which must outlive the context.
  context(Backend backend, Executor executor, hmoe::workspace& memory)
    requires std::same_as<Probe, probes::none>
      : backend_(std::move(backend)), executor_(std::move(executor)), owned_(nullptr), workspace_(&memory) {}
  context(Backend backend, Executor executor, Probe probe, hmoe::workspace& memory)
      : backend_(std::move(backend)), executor_(std::move(executor)), owned_(nullptr), workspace_(&memory),
        probe_(std::move(probe)) {
    prepare_probe();
  }

  [[nodiscard]] const Backend& backend() const noexcept { return backend_; }
  [[nodiscard]] const Executor& executor() const noexcept { return executor_; }
  [[nodiscard]] hmoe::workspace& workspace() const noexcept { return *workspace_; }
  /// Passes change it, as they do the workspace.
  [[nodiscard]] Probe& probe() const noexcept { return probe_; }

private:
  void prepare_probe() {
    if constexpr (requires { probe_.prepare(executor_.concurrency()); })
      probe_.prepare(executor_.concurrency());
  }

  Backend backend_;
  Executor executor_;
  hmoe::detail::owned<hmoe::workspace, false> owned_;
  hmoe::workspace* workspace_;
  [[no_unique_address]] mutable Probe probe_{};
};

template <class Backend> context(Backend) -> context<Backend>;
template <class Backend, class Executor> context(Backend, Executor) -> context<Backend, Executor>;
template <class Backend, class Executor> context(Backend, Executor, workspace&) -> context<Backend, Executor>;
template <class Backend, class Executor, class Probe>
  requires(!std::same_as<Probe, workspace>)
context(Backend, Executor, Probe) -> context<Backend, Executor, Probe>;
template <class Backend, class Executor, class Probe>
context(Backend, Executor, Probe, workspace&) -> context<Backend, Executor, Probe>;

/// A context that computes on the host. Requirements: backend() and executor(), of backend_type and executor_type;
/// workspace(), scratch memory that may be used while a workspace_scope of it lives. Optional: probe(), of probe_type.
template <class C>
concept execution_context =
    backend<typename C::backend_type> && executor<typename C::executor_type> && requires(const C& ctx) {
      { ctx.backend() } -> std::same_as<const typename C::backend_type&>;
      { ctx.executor() } -> std::same_as<const typename C::executor_type&>;
      { ctx.workspace() } -> std::convertible_to<std::pmr::memory_resource&>;
      requires std::constructible_from<typename C::workspace_scope, decltype(ctx.workspace())>;
    };

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
