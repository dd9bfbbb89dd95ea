# SPDX-License-Identifier: MIT
# How our own CUDA programs are built. Nothing here reaches a consumer. Sets HMOE_WITH_CUDA: whether they are built.

set(HMOE_WITH_CUDA OFF)
if(HMOE_CUDA AND TARGET CUDA::cudart AND CUDAToolkit_NVCC_EXECUTABLE AND NOT CMAKE_CROSSCOMPILING)
  set(HMOE_WITH_CUDA ON)
elseif(HMOE_CUDA AND NOT HMOE_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "HMOE_CUDA is ON, but no CUDA toolkit (12.0 or later) was found; set CUDAToolkit_ROOT to where it is")
endif()

# Both halves of the compiler; the host half cannot have -Wpedantic, which the code that nvcc hands it breaks.
set(hmoe_cuda_warnings "-Xcompiler=-Wall,-Wextra")
if(HMOE_WARNINGS_AS_ERRORS)
  list(APPEND hmoe_cuda_warnings -Werror all-warnings -Xcompiler=-Werror)
endif()

# hmoe_add_cuda_program(<target> <file.cu> <source>...): a program, its kernels, and our warnings.
function(hmoe_add_cuda_program target kernels)
  add_executable(${target} ${ARGN})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${target} PRIVATE hmoe::hmoe hmoe::cuda hmoe_warnings)
  hmoe_add_cuda_kernels(${target} ${kernels} FLAGS ${hmoe_cuda_warnings})
endfunction()
