// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <concepts>
#include <memory_resource>

namespace hmoe {

/// Chooses for the whole batch at once, where tokens compete: selection(trace, chosen[T×max_selected(N)], counts[T],
/// memory) writes counts[t] ids into row t of `chosen`; scratch comes from `memory`, and where it takes some it has
/// lay_out(memory, T, N) const, which takes as much as it ever does and does not touch it (see
/// moe_layer::workspace_bytes). A token's result then depends on its batch, which is what such policies are for.
template <class S, class T>
concept batch_selection =
    std::copy_constructible<S> &&
    requires(const S& s, const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
             std::pmr::memory_resource* memory) { s(trace, chosen, counts, memory); };

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
