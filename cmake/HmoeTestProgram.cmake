# SPDX-License-Identifier: MIT
# How programs of tests are compiled. Most tests compute little: to optimise them takes longer than all that they run.
# What they include, hmoe.hpp and doctest, is compiled once for all.

find_package(doctest REQUIRED)
include(HmoeTestGroups)
option(HMOE_OPTIMIZED_TESTS "Compile tests with the optimisation of the build type" OFF)

# ccache would have to be told which differences of times and macros it may overlook, and refuses otherwise.
set(hmoe_precompile_tests ON)
if(CMAKE_CXX_COMPILER_LAUNCHER MATCHES "ccache")
  set(hmoe_precompile_tests OFF)
endif()

string(TOUPPER "${CMAKE_BUILD_TYPE}" configuration)
set(hmoe_build_type_flags "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${configuration}}")
set(hmoe_test_optimisation "")
if(hmoe_build_type_flags MATCHES "-O[23s]" AND NOT HMOE_OPTIMIZED_TESTS)
  set(hmoe_test_optimisation -O0)
endif()
# Intrinsics that are calls take many minutes.
set(hmoe_kernel_test_optimisation "")
if(hmoe_build_type_flags MATCHES "-O[023s]" AND NOT HMOE_OPTIMIZED_TESTS)
  set(hmoe_kernel_test_optimisation -O1)
endif()
# The address sanitizer sees what a null or overflowing pointer is used for; these checks take a quarter of the time again.
if(hmoe_build_type_flags MATCHES "-fsanitize=address,undefined")
  list(APPEND hmoe_kernel_test_optimisation -fno-sanitize=null,pointer-overflow,alignment)
endif()
# clang's -O1 inlines as much as its -O2: with less of it, kernels under a sanitizer are compiled in less time.
set(hmoe_clang_kernel_test_options "")
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND hmoe_build_type_flags MATCHES "-fsanitize=" AND NOT HMOE_OPTIMIZED_TESTS)
  set(hmoe_clang_kernel_test_options "SHELL:-mllvm -inline-threshold=25")
endif()
# g++'s -Og takes 0.6 of the time of its -O1, and kernels for packed weights run nearly as fast. Those for other weights
# need loops unrolled, or they run ten times as long.
set(hmoe_packed_test_optimisation "")
if(hmoe_build_type_flags MATCHES "-O[0123s]" AND NOT HMOE_OPTIMIZED_TESTS)
  set(hmoe_packed_test_optimisation -Og)
endif()

set(hmoe_test_headers <hmoe/hmoe.hpp> <doctest/doctest.h>)
if(hmoe_precompile_tests)
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/test_headers.cpp" CONTENT "// Made by CMake.\n")
  add_library(hmoe_test_headers OBJECT EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/test_headers.cpp")
  list(TRANSFORM hmoe_program_components PREPEND hmoe:: OUTPUT_VARIABLE components)
  target_link_libraries(hmoe_test_headers PRIVATE hmoe::hmoe ${components} hmoe_warnings doctest::doctest)
  target_compile_options(hmoe_test_headers PRIVATE ${hmoe_test_optimisation})
  target_precompile_headers(hmoe_test_headers PRIVATE ${hmoe_test_headers})
endif()

# hmoe_add_test_program(<target> <source>...): a program of tests that compute little, from tests/.
function(hmoe_add_test_program target)
  if(hmoe_test_optimisation) # there is none: larger groups take a quarter less of g++'s time, and up to 2.6 GB
    set(hmoe_group_bytes 120000)
  endif()
  hmoe_group_sources(units ${target} ${ARGN})
  hmoe_add_program(${target} ${units})
  target_link_libraries(${target} PRIVATE hmoe_test_main)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_options(${target} PRIVATE ${hmoe_test_optimisation})
  if(hmoe_precompile_tests)
    target_precompile_headers(${target} REUSE_FROM hmoe_test_headers)
  endif()
endfunction()

# hmoe_add_kernel_test_program(<target> <source>...): one whose tests run intrinsics, perhaps with flags of its own. Its
# few groups of sources would not repay precompiled headers.
function(hmoe_add_kernel_test_program target)
  set(packed ${ARGN})
  list(FILTER packed INCLUDE REGEX "/(packed_|[a-z]+_formats)")
  set(others ${ARGN})
  list(FILTER others EXCLUDE REGEX "/(packed_|[a-z]+_formats)")
  hmoe_group_sources(packed_units ${target}_packed ${packed})
  hmoe_group_sources(units ${target} ${others})
  set_source_files_properties(${packed_units} PROPERTIES COMPILE_OPTIONS "${hmoe_packed_test_optimisation}")
  hmoe_add_program(${target} ${units} ${packed_units}) # functions that both have are linked from the former
  target_link_libraries(${target} PRIVATE hmoe_test_main)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_options(${target} PRIVATE ${hmoe_kernel_test_optimisation} ${hmoe_clang_kernel_test_options})
endfunction()
