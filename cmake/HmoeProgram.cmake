# SPDX-License-Identifier: MIT
# How our own programs are built. Nothing here reaches a consumer.

add_library(hmoe_warnings INTERFACE)
target_compile_options(
  hmoe_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                          $<$<BOOL:${HMOE_WARNINGS_AS_ERRORS}>:-Werror>)

# g++ collects its garbage whenever 128 MB have gathered, which takes a tenth of its time.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  cmake_host_system_information(RESULT megabytes QUERY TOTAL_PHYSICAL_MEMORY)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  math(EXPR half_of_a_share "${megabytes} * 1024 / ${cores} / 2")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:--param ggc-min-heapsize=${half_of_a_share}>")
endif()

add_library(hmoe_native INTERFACE)
target_compile_options(hmoe_native INTERFACE $<$<BOOL:${HMOE_NATIVE}>:-march=native>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # Its AVX-512 intrinsics read an uninitialised variable on purpose (GCC bug 105593).
  target_compile_options(hmoe_native INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

set(hmoe_program_components eigen simd openmp io)
set(hmoe_program_packages Eigen3::Eigen xsimd OpenMP::OpenMP_CXX nlohmann_json::nlohmann_json)
if(NOT CMAKE_CROSSCOMPILING) # TBB is a library of the host's processor
  list(APPEND hmoe_program_components tbb)
  list(APPEND hmoe_program_packages TBB::tbb)
endif()
foreach(package_target IN LISTS hmoe_program_packages)
  if(NOT TARGET ${package_target})
    message(FATAL_ERROR "Tests, examples and benchmarks need ${package_target}, which was not found. "
                        "scripts/test installs it; a build without them needs -DHMOE_BUILD_TESTS=OFF "
                        "-DHMOE_BUILD_EXAMPLES=OFF -DHMOE_BUILD_BENCHMARKS=OFF.")
  endif()
endforeach()

# hmoe_add_program(<target> <source>...): a program with all components that there are and our warnings.
function(hmoe_add_program target)
  add_executable(${target} ${ARGN})
  list(TRANSFORM hmoe_program_components PREPEND hmoe:: OUTPUT_VARIABLE components)
  target_link_libraries(${target} PRIVATE hmoe::hmoe ${components} hmoe_warnings)
endfunction()

# hmoe_build_on_demand(<program> [<test>...]): makes a program, and its tests, part of the target benchmarks, where there
# is such.
function(hmoe_build_on_demand program)
  if(NOT TARGET benchmarks)
    return()
  endif()
  set_target_properties(${program} PROPERTIES EXCLUDE_FROM_ALL ON)
  add_dependencies(benchmarks ${program})
  if(ARGN)
    set_tests_properties(${ARGN} PROPERTIES LABELS benchmarks)
  endif()
endfunction()
