// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// \file
/// What hmoe.hpp declares in place of components that are not switched on: their use is refused with a sentence. They
/// stand in namespaces of their own, so that the real ones, if their headers are included later, are found before them.

#define HMOE_ABSENT_EIGEN                                                                                              \
  "hmoe: backends::eigen is not there: link hmoe::eigen, or compile with -DHMOE_WITH_EIGEN, or include "               \
  "hmoe/backends/eigen.hpp"
#define HMOE_ABSENT_SIMD                                                                                               \
  "hmoe: backends::simd is not there: link hmoe::simd, or compile with -DHMOE_WITH_SIMD, or include "                  \
  "hmoe/backends/simd.hpp"
#define HMOE_ABSENT_OPENMP "hmoe: executors::openmp is not there: link hmoe::openmp, or compile with -fopenmp"
#define HMOE_ABSENT_TBB "hmoe: executors::tbb is not there: include hmoe/execution/tbb.hpp, and link hmoe::tbb"

namespace hmoe::detail {
template <class...> inline constexpr bool is_there = false;
} // namespace hmoe::detail

namespace hmoe::backends {
namespace absent {
#ifndef HMOE_WITH_EIGEN
struct __attribute__((unavailable(HMOE_ABSENT_EIGEN))) eigen {
  template <class... Arguments> eigen(const Arguments&...) {
    static_assert(detail::is_there<Arguments...>, HMOE_ABSENT_EIGEN);
  }
  // A context finds nothing else to complain about.
  template <class A, class B, class C> void multiply_transposed(A, B, C) const;
  template <class A, class B, class C> void multiply(A, B, C) const;
  template <class A, class B, class C> void accumulate(A, B, C) const;
  template <class A, class B, class C> void accumulate_transposed(A, B, C) const;
};
#endif
#ifndef HMOE_WITH_SIMD
template <class Arch = void> struct simd {
  static_assert(detail::is_there<Arch>, HMOE_ABSENT_SIMD);
};
#endif
} // namespace absent
using namespace absent;
} // namespace hmoe::backends

namespace hmoe::executors {
namespace absent {
#ifndef _OPENMP
struct __attribute__((unavailable(HMOE_ABSENT_OPENMP))) openmp {
  template <class... Arguments> openmp(const Arguments&...) {
    static_assert(detail::is_there<Arguments...>, HMOE_ABSENT_OPENMP);
  }
  [[nodiscard]] unsigned concurrency() const;
  template <class Task> void for_each(unsigned long, Task) const;
};
#endif
struct __attribute__((unavailable(HMOE_ABSENT_TBB))) tbb {
  template <class... Arguments> tbb(const Arguments&...) {
    static_assert(detail::is_there<Arguments...>, HMOE_ABSENT_TBB);
  }
  [[nodiscard]] unsigned concurrency() const;
  template <class Task> void for_each(unsigned long, Task) const;
};
} // namespace absent
using namespace absent;
} // namespace hmoe::executors

#undef HMOE_ABSENT_EIGEN
#undef HMOE_ABSENT_SIMD
#undef HMOE_ABSENT_OPENMP
#undef HMOE_ABSENT_TBB

#include <hmoe/core/macros_on.hpp>
