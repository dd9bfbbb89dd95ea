// SPDX-License-Identifier: MIT
// Function-like macros of other headers do no harm, and are there afterwards.
// flags: -fopenmp -DHMOE_WITH_EIGEN -DHMOE_WITH_SIMD
// compile only
#include <Eigen/Core>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory_resource>
#include <mutex>
#include <numeric>
#include <optional>
#include <sstream>
#include <thread>

#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define check(what) check_of_another_header(what)
#define require(what) require_of_another_header(what)
#define fail(what) fail_of_another_header(what)

#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/execution/tbb.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/interop/eigen.hpp>

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
