// SPDX-License-Identifier: MIT
// Function-like macros of other headers do no harm, and are there afterwards.
// flags: -fopenmp -DHMOE_WITH_EIGEN -DHMOE_WITH_SIMD
// compile only
#include <algorithm> // before the macros: a standard library may undefine min and max once

#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define check(what) check_of_another_header(what)
#define require(what) require_of_another_header(what)
#define fail(what) fail_of_another_header(what)

#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

static_assert(min(1, 2) == 1 && max(1, 2) == 2);
#if !defined(check) || !defined(require) || !defined(fail)
#error "the macros of the other header are gone"
#endif

using namespace hmoe;

void run(matrix_view<const float> x, matrix_view<float> y) {
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(4, {1, 2})},
                  routing::top_k_router<float>(4, 2, 1)};
  layer.forward(context{backends::reference{}, executors::openmp{2}}, x, y);
}
