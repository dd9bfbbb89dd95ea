# SPDX-License-Identifier: MIT
# The tests of the SIMD kernels again, at each instruction-set level that this CPU has; all other programs are for the
# baseline.
set(simd_sources ${backends_sources})
list(FILTER simd_sources INCLUDE REGEX "^backends/simd(/.*)?\\.cpp$")
set(flags_of_v2 -march=x86-64-v2)
set(flags_of_v3 -march=x86-64-v3)
set(flags_of_v4 -march=x86-64-v4)
set(flags_of_v4_bf16 -march=x86-64-v4 -mavx512bf16 -mavx512vnni)
foreach(level v2 v3 v4 v4_bf16)
  hmoe_add_isa_test(simd.${level} ${level} test_simd_${level})
  hmoe_cpu_has_level(runs ${level})
  if(NOT runs)
    continue()
  endif()
  hmoe_add_kernel_test_program(test_simd_${level} ${simd_sources})
  target_compile_options(test_simd_${level} PRIVATE ${flags_of_${level}})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # Its AVX-512 intrinsics read an uninitialised variable on purpose (GCC bug 105593).
    target_compile_options(test_simd_${level} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
endforeach()
