// SPDX-License-Identifier: MIT
#pragma once

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

/// f.operator()<shape>() with the tiles for as many rows as the plan has room for.
template <block_shapes Shapes, class F> void with_tiles(const plan_arrays& plan, const F& f) {
  if (plan.capacity >= rows_for_large_tiles * plan.experts)
    f.template operator()<Shapes.many>();
  else
    f.template operator()<Shapes.few>();
}

} // namespace hmoe::backends::cuda_detail
