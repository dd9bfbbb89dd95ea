// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/mma.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

namespace hmoe::backends::cuda_detail {

/// f.operator()<Atom, shapes>() with the types that the options ask for.
template <class S, class F> void with_atom(float_math math, const F& f) {
  if constexpr (sizeof(S) == 2)
    f.template operator()<tensor_atom_16<S>, product_tiles<S>()>();
  else if (math == float_math::tf32)
    f.template operator()<tensor_atom_tf32, product_tiles<S>()>();
  else
    f.template operator()<fma_atom, product_tiles<S>()>();
}

/// f.operator()<shape>() with the tiles that the options ask for, or those for as many rows as the plan has room for,
/// in products of at least `columns` columns.
template <block_shapes Shapes, class F>
void with_tiles(const ffn_options& options, const launch_target& target, const plan_arrays& plan, std::size_t columns,
                const F& f) {
  const tile_size size =
      options.tiles != tile_size::automatic
          ? options.tiles
          : chosen_tiles(target.compute_capability, target.multiprocessors, plan.capacity, plan.experts, columns);
  if (size == tile_size::small)
    f.template operator()<Shapes.few>();
  else if (size == tile_size::large)
    f.template operator()<Shapes.many>();
  else
    f.template operator()<Shapes.most>();
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
