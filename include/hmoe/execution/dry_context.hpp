// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/execution/context.hpp>
#include <hmoe/execution/workspace.hpp>

namespace hmoe {

/// The backend and the executor of another context, with a workspace that only counts: for functions that lay out the
/// memory of a pass. The other context must outlive it.
template <execution_context Context> class dry_context {
public:
  using backend_type = typename Context::backend_type;
  using executor_type = typename Context::executor_type;
  using workspace_scope = hmoe::workspace::scope;

  explicit dry_context(const Context& like) noexcept : like_(like) {}

  [[nodiscard]] const backend_type& backend() const noexcept { return like_.backend(); }
  [[nodiscard]] const executor_type& executor() const noexcept { return like_.executor(); }
  [[nodiscard]] hmoe::workspace& workspace() const noexcept { return memory_; }

private:
  const Context& like_;
  mutable hmoe::workspace memory_{dry_run{}};
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
