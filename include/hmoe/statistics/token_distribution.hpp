// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>

#include <cstdint>

namespace hmoe::statistics {

/// Adds to counts[N×V]: at (e, v) the tokens with vocabulary id v that expert e got. The rows, divided by their sums,
/// are the experts' token distributions. Tokens without an expert, as padding is, may have any id.
template <class T>
void add_token_distribution(const assignment<T>& assigned, vector_view<const index_t> token_ids,
                            matrix_view<std::uint64_t> counts) {
  require(token_ids.size() == assigned.tokens(), "there are ", token_ids.size(), " token ids for ", assigned.tokens(),
          " tokens");
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    require(token_ids[t] < counts.cols() || assigned.experts_of(t).empty(), "token ", t, " has id ", token_ids[t],
            " of a vocabulary of ", counts.cols());
  for (const index_t e : assigned.experts())
    require(e < counts.rows(), "the assignment names expert ", e, ", the token distribution has ", counts.rows());
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    for (const index_t e : assigned.experts_of(t))
      ++counts(e, token_ids[t]);
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
