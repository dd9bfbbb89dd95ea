// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace language_model {

/// A router, a loss or a kind of shared experts that a variant can name.
struct policy_kind {
  const char* name;
  const char* values;       ///< what follows the name, ":K[:RATE]" say
  const char* meaning;      ///< a line for the list of names
  std::size_t least;        ///< how many values must be given
  std::size_t most;         ///< and can be given
  const char* options = ""; ///< words that may follow the values of a loss, "to-k|to-one" say; the first is the default
};

std::span<const policy_kind> router_kinds();

std::span<const policy_kind> shared_kinds();

/// In the order in which a layer evaluates them.
std::span<const policy_kind> loss_kinds();

/// The kind of that name, or nullptr.
const policy_kind* find_kind(std::span<const policy_kind> kinds, std::string_view name);

/// "top-k:K, top-p:P, …"
std::string usage(std::span<const policy_kind> kinds);

/// One line for each kind: what to write, and what it is.
std::string describe(std::span<const policy_kind> kinds);

} // namespace language_model
