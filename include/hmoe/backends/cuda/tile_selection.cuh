// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/mma.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

#include <type_traits>

namespace hmoe::backends::cuda_detail {

/// f(atom, shape) with the types that the options and the number of rows ask for.
template <class S, class F> void with_tiles(const plan_arrays& plan, float_math math, const F& f) {
  const auto with_atom = [&]<class Atom>(std::type_identity<Atom>) {
    constexpr tile_shapes shapes = product_tiles<S>();
    if (plan.capacity >= rows_for_large_tiles * plan.experts)
      f.template operator()<Atom, shapes.many>();
    else
      f.template operator()<Atom, shapes.few>();
  };
  if constexpr (std::is_same_v<S, float>) {
    if (math == float_math::tf32)
      with_atom(std::type_identity<tensor_atom_tf32>{});
    else
      with_atom(std::type_identity<fma_atom>{});
  } else {
    with_atom(std::type_identity<tensor_atom_16<S>>{});
  }
}

} // namespace hmoe::backends::cuda_detail
