// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/products.hpp>

namespace hmoe {

/// What executes the arithmetic. A CPU backend has at least the matrix products, for float and double; whatever it
/// does better than the plain form it has as an operation of hmoe/execution/operations.hpp.
template <class B>
concept backend = matrix_products<B, float> && matrix_products<B, double>;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
