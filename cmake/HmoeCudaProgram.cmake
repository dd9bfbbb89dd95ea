# SPDX-License-Identifier: MIT
# How our own CUDA programs are built. Nothing here reaches a consumer. Sets
# HMOE_WITH_CUDA      whether there is nvcc, and HMOE_CUDA lets us use it
# HMOE_CUDA_GPU       whether there is a GPU
# HMOE_CUDA_PROGRAMS  whether programs for a GPU are built: where there is one, or HMOE_CUDA is ON

set(HMOE_WITH_CUDA OFF)
set(HMOE_CUDA_GPU OFF)
set(HMOE_CUDA_PROGRAMS OFF)
if(HMOE_CUDA AND TARGET CUDA::cudart AND CUDAToolkit_NVCC_EXECUTABLE AND NOT CMAKE_CROSSCOMPILING)
  set(HMOE_WITH_CUDA ON)
elseif(HMOE_CUDA AND NOT HMOE_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "HMOE_CUDA is ON, but no CUDA toolkit (12.0 or later) was found; set CUDAToolkit_ROOT to where it is")
endif()
if(HMOE_WITH_CUDA)
  find_program(HMOE_NVIDIA_SMI nvidia-smi)
  if(HMOE_NVIDIA_SMI)
    execute_process(COMMAND "${HMOE_NVIDIA_SMI}" --list-gpus OUTPUT_VARIABLE gpus ERROR_QUIET)
    if(gpus MATCHES "GPU 0")
      set(HMOE_CUDA_GPU ON)
    endif()
  endif()
  if(HMOE_CUDA_GPU OR NOT HMOE_CUDA STREQUAL "AUTO")
    set(HMOE_CUDA_PROGRAMS ON)
  endif()
endif()

# Both halves of the compiler; the host half cannot have -Wpedantic, which the code that nvcc hands it breaks.
set(hmoe_cuda_warnings "-Xcompiler=-Wall,-Wextra")
if(HMOE_WARNINGS_AS_ERRORS)
  list(APPEND hmoe_cuda_warnings -Werror all-warnings -Xcompiler=-Werror)
endif()

# All CUDA programs that there are: `cmake --build --preset cuda` builds nothing else.
add_custom_target(cuda_programs)

# hmoe_add_cuda_program(<target> <file.cu> <source>... [FLAGS <nvcc option>...]): a program, its kernels, and our warnings.
function(hmoe_add_cuda_program target kernels)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "FLAGS")
  add_executable(${target} ${arg_UNPARSED_ARGUMENTS})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${target} PRIVATE hmoe::hmoe hmoe::cuda hmoe_warnings)
  hmoe_add_cuda_kernels(${target} ${kernels} FLAGS ${hmoe_cuda_warnings} ${arg_FLAGS})
  add_dependencies(cuda_programs ${target})
endfunction()
