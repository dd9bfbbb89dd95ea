// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/products.hpp>

namespace hmoe {

/// What executes the arithmetic. A CPU backend has at least the matrix products, for float and double; whatever it
/// does better than the generic form it overloads (dispatch/grouped.hpp, dispatch/rows.hpp,
/// experts/elementwise.hpp, routing/score_function.hpp and routing/selection.hpp say what is looked for).
template <class B>
concept backend = matrix_products<B, float> && matrix_products<B, double>;

} // namespace hmoe
