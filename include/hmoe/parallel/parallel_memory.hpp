// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/parallel/row_exchange.hpp>

#include <cstddef>
#include <memory_resource>
#include <vector>

/// What dispatch::expert_parallel keeps of a pass, and what it takes for one.
namespace hmoe::dispatch::detail {

/// What a rank keeps of a pass for its experts' part.
template <class T> struct parallel_memory {
  parallel_memory() : inner(std::pmr::get_default_resource(), true) {}
  parallel_memory(std::pmr::memory_resource* memory, bool recording)
      : exchange(memory), inner(memory, recording), results(memory) {}

  row_exchange exchange;
  tape<T> inner;     ///< a token for each result of this rank's experts: its row, one expert, weight 1
  matrix<T> results; ///< [results×d] what experts returned for the entries of this rank's tokens
};
/// Of all parts of a pass that is recorded.
template <class T> struct parallel_parts {
  std::vector<parallel_memory<T>> parts;
};

/// Of messages in a forward pass.
template <class T> struct parallel_forward_memory {
  parallel_forward_memory(std::pmr::memory_resource* memory, std::size_t rows_out_count, std::size_t rows_in_count,
                          std::size_t results_in, std::size_t d, bool spread, bool own_input,
                          std::size_t weights_out_count, std::size_t weights_in_count)
      : rows_out(matrix<T>::for_overwrite(rows_out_count, d, memory)),
        rows_in(matrix<T>::for_overwrite(spread ? rows_in_count : 0, d, memory)),
        input(matrix<T>::for_overwrite(own_input ? results_in : 0, d, memory)),
        out(matrix<T>::for_overwrite(results_in, d, memory)), weights_out(weights_out_count, memory),
        weights_in(weights_in_count, memory) {}

  matrix<T> rows_out, rows_in, input, out;
  buffer<T> weights_out, weights_in;
};
/// And in a backward pass.
template <class T> struct parallel_backward_memory {
  parallel_backward_memory(std::pmr::memory_resource* memory, std::size_t rows_out_count, std::size_t rows_in_count,
                           std::size_t results_in, std::size_t results, std::size_t d, bool on_input)
      : rows_out(matrix<T>::for_overwrite(rows_out_count, d, memory)),
        rows_in(matrix<T>::for_overwrite(rows_in_count, d, memory)),
        d_out(matrix<T>::for_overwrite(results_in, d, memory)), d_in(matrix<T>::for_overwrite(results_in, d, memory)),
        d_results(matrix<T>::for_overwrite(results, d, memory)), weights_out(on_input ? 0 : results, memory),
        weights_in(on_input ? 0 : results_in, memory), unused(results_in, memory) {}

  matrix<T> rows_out, rows_in, d_out, d_in, d_results;
  buffer<T> weights_out, weights_in, unused;
};

} // namespace hmoe::dispatch::detail

#include <hmoe/core/macros_on.hpp>
