// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// Refuses compilers and flags that the library cannot work with. Every public header reaches this one before any other
/// text, so that its sentence is the first error.

#if __cplusplus < 202002L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 202002L)
#error "hmoe needs C++20: compile with -std=c++20 (CMake: target_compile_features(app PRIVATE cxx_std_20))"
#elif defined(__apple_build_version__) && __clang_major__ < 15
#error "hmoe needs Apple clang 15 or later: install a newer Xcode"
#elif defined(__clang__) && !defined(__apple_build_version__) && __clang_major__ < 16
#error "hmoe needs clang 16 or later, or g++ 12 or later: choose a newer compiler, for instance CXX=g++"
#elif defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#error "hmoe needs g++ 12 or later, or clang 16 or later: choose a newer compiler, for instance CXX=clang++"
#elif !defined(__GNUC__)
#error "hmoe needs g++ 12 or later, or clang 16 or later: this compiler is neither"
#elif defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error                                                                                                                 \
    "hmoe checks for NaN, which -ffast-math, -Ofast and -ffinite-math-only rule out: compile without them, or add -fno-finite-math-only behind -ffast-math"
#endif
