# SPDX-License-Identifier: MIT
# The target gpu_bundle: a folder bundle/ in the build folder with everything that a machine with a GPU runs (scripts/gpu).
# Nothing there is compiled, so the machine needs neither nvcc nor CMake. benchmarks/cuda is left out where cuBLAS is not
# found here.
set(programs)
get_property(cuda_tests GLOBAL PROPERTY HMOE_CUDA_TEST_TARGETS)
foreach(target IN LISTS cuda_tests)
  string(REGEX REPLACE "^test_cuda_" "tests/" name ${target})
  list(APPEND programs "${name}=$<TARGET_FILE:${target}>")
endforeach()
foreach(target IN ITEMS probe benchmark_cuda)
  if(TARGET ${target})
    list(APPEND programs "${target}=$<TARGET_FILE:${target}>")
    list(APPEND cuda_tests ${target})
  endif()
endforeach()
add_custom_target(
  gpu_bundle
  COMMAND bash "${PROJECT_SOURCE_DIR}/scripts/lib/gpu_bundle" "${PROJECT_BINARY_DIR}/bundle" ${programs}
  COMMENT "Collecting bundle/"
  VERBATIM)
add_dependencies(gpu_bundle ${cuda_tests})
