# SPDX-License-Identifier: MIT
# Builds and runs the consumer project from nothing.
# usage: cmake -D COMPILER=... -D GENERATOR=... -D SOURCE_DIR=... -D BUILD_DIR=... -D (HMOE_SOURCE_DIR|HMOE_BUILD_DIR)=...
#              [-D PROGRAM=...] -P consumer.cmake
# The library comes as a subfolder from HMOE_SOURCE_DIR, or it is installed from HMOE_BUILD_DIR first. With PROGRAM only
# this one is built.
file(REMOVE_RECURSE ${BUILD_DIR})
if(HMOE_BUILD_DIR)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${HMOE_BUILD_DIR} --prefix ${BUILD_DIR}/prefix
                  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endif()
execute_process(
  COMMAND ${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE_DIR} -B ${BUILD_DIR} -D CMAKE_CXX_COMPILER=${COMPILER}
          -D CMAKE_PREFIX_PATH=${BUILD_DIR}/prefix "-DHMOE_SOURCE_DIR=${HMOE_SOURCE_DIR}"
  COMMAND_ERROR_IS_FATAL ANY)
set(target)
if(PROGRAM)
  set(target --target ${PROGRAM})
endif()
set(programs ${BUILD_DIR})
if(GENERATOR MATCHES "Multi-Config")
  list(APPEND target --config Release)
  set(programs ${BUILD_DIR}/Release)
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD_DIR} --parallel 2 ${target} COMMAND_ERROR_IS_FATAL ANY)
foreach(program core_only all_components isa_levels device_kernels)
  if(PROGRAM AND NOT program STREQUAL PROGRAM)
    continue()
  endif()
  if(program STREQUAL "device_kernels" AND NOT EXISTS ${programs}/${program})
    continue() # there is no nvcc
  endif()
  execute_process(COMMAND ${programs}/${program} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
