// SPDX-License-Identifier: MIT
#pragma once

#include "tensor.hpp"

#include <algorithm>
#include <cstddef>

namespace language_model {

/// Calls f(0) … f(count - 1), shared among the threads. Every call writes what nobody else writes and sums in an
/// order of its own, so the bits of a result do not depend on the number of threads. f must not throw.
template <class F> void parallel_for(std::size_t threads, std::size_t count, F&& f) {
#ifdef _OPENMP
  if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(threads))
    for (std::size_t i = 0; i < count; ++i)
      f(i);
    return;
  }
#else
  static_cast<void>(threads);
#endif
  for (std::size_t i = 0; i < count; ++i)
    f(i);
}

/// gradient += dyᵀ x, summed over all rows. The work is cut along the rows of the gradient, never along the sum.
template <class T>
void add_weight_gradient(std::size_t threads, const matrix<T>& dy, const matrix<T>& x, matrix<T>& gradient) {
  constexpr Eigen::Index block = 64;
  const std::size_t blocks = to_size((gradient.rows() + block - 1) / block);
  parallel_for(threads, blocks, [&](std::size_t b) {
    const Eigen::Index first = to_index(b) * block;
    const Eigen::Index size = std::min(block, gradient.rows() - first);
    gradient.middleRows(first, size).noalias() += dy.middleCols(first, size).transpose() * x;
  });
}

} // namespace language_model
