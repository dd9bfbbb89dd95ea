# SPDX-License-Identifier: MIT
# The tests of the SIMD kernels again, at each instruction-set level that this CPU has; all other programs are for the
# baseline.
set(simd_sources ${backends_sources})
list(FILTER simd_sources INCLUDE REGEX "^backends/simd(/.*)?\\.cpp$")
# How rows are cut, what memory that takes, and what layers make of it is the same code at every level.
list(FILTER simd_sources EXCLUDE REGEX "/(batch_layout|chunks|pieces|ffn_memory|packed_forward|[a-z_]+_layers)\\.cpp$")
set(flags_of_v2 -march=x86-64-v2)
set(flags_of_v3 -march=x86-64-v3)
set(flags_of_v4 -march=x86-64-v4)
set(flags_of_v4_bf16 -march=x86-64-v4 -mavx512bf16 -mavx512vnni)
# BF16 and VNNI are for packed weights: where only their two headers ask for these, everything else is the same machine
# code at v4 and v4_bf16, and is tested at v4 alone.
set(sources_of_v4_bf16 ${simd_sources})
set(asking)
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}/include/hmoe/backends"
     "${PROJECT_SOURCE_DIR}/include/hmoe/backends/*.hpp")
foreach(header IN LISTS headers)
  file(STRINGS "${PROJECT_SOURCE_DIR}/include/hmoe/backends/${header}" lines REGEX "__AVX512(BF16|VNNI)__" LIMIT_COUNT 1)
  if(lines)
    list(APPEND asking ${header})
  endif()
endforeach()
if(asking STREQUAL "simd/int8_dot.hpp;simd/weight_formats.hpp")
  set(sources_of_v4_bf16)
  foreach(source IN LISTS simd_sources)
    file(STRINGS "${source}" lines REGEX "pack<|pack\\(|formats" LIMIT_COUNT 1)
    if(lines)
      list(APPEND sources_of_v4_bf16 ${source})
    endif()
  endforeach()
endif()
foreach(level v2 v3 v4)
  set(sources_of_${level} ${simd_sources})
endforeach()
set(hmoe_group_bytes 80000) # a level is two translation units, which read the headers once each
foreach(level v2 v3 v4 v4_bf16)
  hmoe_add_isa_test(simd.${level} ${level} test_simd_${level})
  hmoe_cpu_has_level(runs ${level})
  if(NOT runs)
    continue()
  endif()
  hmoe_add_kernel_test_program(test_simd_${level} ${sources_of_${level}})
  target_compile_options(test_simd_${level} PRIVATE ${flags_of_${level}})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # Its AVX-512 intrinsics read an uninitialised variable on purpose (GCC bug 105593).
    target_compile_options(test_simd_${level} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
endforeach()
