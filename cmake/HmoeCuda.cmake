# SPDX-License-Identifier: MIT
# Kernels of backends::cuda in a consumer's target. Calls nvcc itself, so that no project has to enable the language CUDA.

set(HMOE_CUDA_ARCHITECTURES "80;90;100"
    CACHE STRING "Compute capabilities (times ten) that hmoe_add_cuda_kernels compiles for; 90-virtual: to PTX only")

# Sets <result> to nvcc's options for code of the given compute capabilities, and PTX of the last one for later devices.
function(hmoe_cuda_code_flags result)
  set(flags)
  foreach(arch IN LISTS ARGN)
    string(REPLACE "-virtual" "" number "${arch}")
    if(arch STREQUAL number)
      list(APPEND flags "--generate-code=arch=compute_${number},code=sm_${number}")
    else()
      list(APPEND flags "--generate-code=arch=compute_${number},code=compute_${number}")
    endif()
  endforeach()
  list(GET ARGN -1 last)
  string(REPLACE "-virtual" "" last "${last}")
  list(APPEND flags "--generate-code=arch=compute_${last},code=compute_${last}")
  list(REMOVE_DUPLICATES flags)
  set(${result} "${flags}" PARENT_SCOPE)
endfunction()

# hmoe_add_cuda_kernels(<target> <file.cu>... [ARCHITECTURES <80>...] [FLAGS <nvcc option>...] [STATIC_RUNTIME])
# Compiles the files, which include hmoe/backends/cuda/layer.cuh and instantiate layers, and adds them to the target, with
# the target's include directories and definitions. Architectures are those of HMOE_CUDA_ARCHITECTURES unless given.
# STATIC_RUNTIME links CUDA's runtime into the target, in place of the shared library that hmoe::cuda brings.
function(hmoe_add_cuda_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "STATIC_RUNTIME" "" "ARCHITECTURES;FLAGS")
  if(NOT CUDAToolkit_NVCC_EXECUTABLE)
    message(FATAL_ERROR "hmoe_add_cuda_kernels(${target}): nvcc was not found; install the CUDA toolkit, or set "
                        "CUDAToolkit_ROOT to where it is")
  endif()
  if(NOT arg_ARCHITECTURES)
    set(arg_ARCHITECTURES ${HMOE_CUDA_ARCHITECTURES})
  endif()
  hmoe_cuda_code_flags(code ${arg_ARCHITECTURES})
  set(includes "$<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>")
  # Without the macros that make the umbrella include other components, whose libraries nvcc may not digest.
  set(definitions "$<FILTER:$<TARGET_PROPERTY:${target},COMPILE_DEFINITIONS>,EXCLUDE,^HMOE_WITH_>")
  get_property(several_configurations GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
  set(configuration "")
  if(several_configurations)
    set(configuration "_$<CONFIG>")
  endif()
  foreach(source IN LISTS arg_UNPARSED_ARGUMENTS)
    cmake_path(ABSOLUTE_PATH source NORMALIZE)
    cmake_path(GET source FILENAME name)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${target}_${name}${configuration}.o")
    add_custom_command(
      OUTPUT "${object}"
      COMMAND
        "${CUDAToolkit_NVCC_EXECUTABLE}" -std=c++20 $<IF:$<CONFIG:Debug>,-O1,-O3> $<$<NOT:$<CONFIG:Debug>>:-DNDEBUG>
        "--compiler-bindir=${CMAKE_CXX_COMPILER}" ${code}
        $<$<BOOL:$<TARGET_PROPERTY:${target},POSITION_INDEPENDENT_CODE>>:-Xcompiler=-fPIC>
        "$<$<BOOL:${includes}>:-I$<JOIN:${includes},;-I>>" "$<$<BOOL:${definitions}>:-D$<JOIN:${definitions},;-D>>"
        ${arg_FLAGS} -MD -MT "${object}" -MF "${object}.d" -c "${source}" -o "${object}"
      DEPENDS "${source}"
      DEPFILE "${object}.d"
      COMMENT "Compiling kernels ${name}"
      COMMAND_EXPAND_LISTS VERBATIM)
    target_sources(${target} PRIVATE "${object}")
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  endforeach()
  if(arg_STATIC_RUNTIME)
    target_link_libraries(${target} PRIVATE hmoe::hmoe CUDA::cudart_static)
  else()
    target_link_libraries(${target} PRIVATE hmoe::cuda)
  endif()
endfunction()
