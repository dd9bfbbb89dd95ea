// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/activations.hpp>
#include <hmoe/backends/simd/products.hpp>
#include <hmoe/backends/simd/routing.hpp>
#include <hmoe/backends/simd/rows.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <xsimd/xsimd.hpp>

namespace hmoe::backends {

/// Products with the SIMD registers of Arch, by default the best instruction set that the compiler's flags allow.
/// Every element of a product is one chain of multiply-adds over ascending k in the matrices' own type: the bits of a
/// token's output depend on nothing but the token, whatever the batch, the threads or the dispatch. Activations (see
/// vector_form), probabilities and choices of a router, and the sums over a token's experts run in vectors too.
/// Allocates nothing.
template <class Arch = xsimd::default_arch>
struct simd : simd_detail::activations<Arch>, simd_detail::routing_rows<Arch>, simd_detail::row_operations<Arch> {
  template <class A, class B, class C>
  static void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, transposed, false, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, plain, false, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, plain, true, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<transposed, plain, true, Arch>(a, b, c);
  }
};

} // namespace hmoe::backends
