// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// \file
/// AVX-512 intrinsics, to be included before other libraries do. g++ 12 warns of them, wherever they are used, since
/// they read an undefined value on purpose (its bug 105593).

#if defined(__AVX512F__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include <hmoe/core/macros_on.hpp>
