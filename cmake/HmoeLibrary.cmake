# SPDX-License-Identifier: MIT
# The library's targets: hmoe::hmoe, and one component for each optional third-party package.
# A component owns the headers that need its package; so the rest is known to compile without it.

# The packages stay invisible to a consumer who does not link the component.
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 3.4 QUIET NO_MODULE GLOBAL)
endif()
if(NOT TARGET xsimd)
  find_package(xsimd 8.1 QUIET GLOBAL)
endif()
if(NOT TARGET OpenMP::OpenMP_CXX)
  find_package(OpenMP QUIET GLOBAL COMPONENTS CXX)
endif()
if(NOT TARGET TBB::tbb)
  find_package(TBB QUIET GLOBAL COMPONENTS tbb)
endif()
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3.11 QUIET GLOBAL)
endif()
if(NOT CMAKE_CROSSCOMPILING AND NOT TARGET MPI::MPI_CXX)
  set(MPI_CXX_SKIP_MPICXX TRUE)
  find_package(MPI 3.0 QUIET GLOBAL COMPONENTS CXX)
endif()
if(HMOE_CUDA AND NOT TARGET CUDA::cudart)
  find_package(CUDAToolkit 12.0 QUIET)
endif()
if(HMOE_CUDA AND NOT TARGET NCCL::nccl)
  find_package(NCCL QUIET)
endif()

file(GLOB_RECURSE hmoe_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/hmoe/*.hpp")
file(GLOB_RECURSE hmoe_device_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/hmoe/*.cuh")

# Adds the interface target hmoe_<name>, seen as hmoe::<name>, that owns the given headers.
function(hmoe_add_interface target export_name)
  add_library(${target} INTERFACE)
  add_library(hmoe::${export_name} ALIAS ${target})
  target_sources(${target} INTERFACE FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include" FILES ${ARGN})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${export_name})
endfunction()

# hmoe_add_component(<name> <package target> [<macro>] [HEADERS <regex>]): headers named <name>.hpp or in a folder <name>/,
# or those whose paths match the regular expression.
function(hmoe_add_component name package_target)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "HEADERS" "")
  if(NOT arg_HEADERS)
    set(arg_HEADERS "/${name}(\\.hpp|/[^/]*\\.hpp)$")
  endif()
  set(headers ${hmoe_headers})
  list(FILTER headers INCLUDE REGEX "${arg_HEADERS}")
  set(core_headers ${hmoe_headers})
  if(headers)
    list(REMOVE_ITEM core_headers ${headers})
  endif()
  set(hmoe_headers ${core_headers} PARENT_SCOPE)

  hmoe_add_interface(hmoe_${name} ${name} ${headers})
  target_link_libraries(hmoe_${name} INTERFACE hmoe)
  if(package_target STREQUAL "xsimd")
    # Debian's target asks the linker for xtl, which is another package and nothing but headers.
    target_include_directories(hmoe_${name} SYSTEM
                               INTERFACE $<TARGET_PROPERTY:${package_target},INTERFACE_INCLUDE_DIRECTORIES>)
  else()
    target_link_libraries(hmoe_${name} INTERFACE ${package_target})
  endif()
  target_compile_definitions(hmoe_${name} INTERFACE ${arg_UNPARSED_ARGUMENTS})
  # Without the package the target still exists, so that its headers are installed, but nothing may compile it.
  if(NOT TARGET ${package_target})
    set_target_properties(hmoe_${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)
  endif()
endfunction()

hmoe_add_component(eigen Eigen3::Eigen HMOE_WITH_EIGEN)
hmoe_add_component(simd xsimd HMOE_WITH_SIMD)
hmoe_add_component(openmp OpenMP::OpenMP_CXX)
hmoe_add_component(tbb TBB::tbb)
hmoe_add_component(cuda CUDA::cudart)
hmoe_add_component(mpi MPI::MPI_CXX)
hmoe_add_component(nccl NCCL::nccl)
# Of io/, what reads JSON.
hmoe_add_component(io nlohmann_json::nlohmann_json
                   HEADERS "/io/(json|safetensors|shards|ragged_manifest|ragged_checkpoint|ragged_experts|ragged_shards|packed_manifest|packed_checkpoint|routing_text|tuned_table|models/.*)\\.hpp$|/parallel/checkpoint\\.hpp$")
# What only nvcc compiles: a header set of its own, which the check of headers on their own leaves out.
target_sources(hmoe_cuda INTERFACE FILE_SET device_headers TYPE HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include"
                                   FILES ${hmoe_device_headers})
set_target_properties(hmoe_cuda PROPERTIES INTERFACE_HEADER_SETS_TO_VERIFY HEADERS)

hmoe_add_interface(hmoe hmoe ${hmoe_headers})
target_compile_features(hmoe INTERFACE cxx_std_20)
