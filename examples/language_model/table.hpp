// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>

#include <iosfwd>
#include <string>
#include <vector>

namespace language_model {

/// Prints rows of equal length as aligned columns: the first to the left, the others to the right. The first row is
/// the heading.
void print_columns(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

/// The contents of results.json as a table: a line per variant with means over its seeds and half the range between
/// them, then each layer's share of activations per expert, narrowest expert first.
void print_table(std::ostream& out, const nlohmann::json& results);

/// The contents of pruning.json as a table: a line per model, cut and budget, with means over seeds and half the range.
void print_pruning_table(std::ostream& out, const nlohmann::json& results);

} // namespace language_model
