// SPDX-License-Identifier: MIT
#pragma once

// The trap: one name at every level, and another value at each. Merged by the linker, all levels would get one of them.
inline const char* compiled_for =
#if defined(__AVX512BF16__)
    "v4_bf16";
#elif defined(__AVX512VL__)
    "v4";
#elif defined(__AVX2__)
    "v3";
#elif defined(__SSE4_2__)
    "v2";
#else
    "base";
#endif

// Within a level, though, there is one of it for all files.
inline int calls = 0;
