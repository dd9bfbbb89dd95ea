# SPDX-License-Identifier: MIT
# Compiles every public header on its own, with the warnings that our own programs use.
# usage: cmake -D COMPILER=... -D SOURCE_DIR=... -D BUILD_DIR=... -D WARNINGS_AS_ERRORS=ON|OFF -P headers_alone.cmake
set(flags "-Wall -Wextra -Wpedantic -Wconversion -Wshadow")
if(WARNINGS_AS_ERRORS)
  string(APPEND flags " -Werror")
endif()
execute_process(
  COMMAND
    ${CMAKE_COMMAND} -G Ninja -S ${SOURCE_DIR} -B ${BUILD_DIR} --log-level=WARNING
    -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_VERIFY_INTERFACE_HEADER_SETS=ON "-DCMAKE_CXX_FLAGS=${flags}"
    -D CMAKE_BUILD_TYPE=Headers -D CMAKE_CXX_FLAGS_HEADERS=-fsyntax-only -D HMOE_INSTALL=OFF
    -D HMOE_BUILD_TESTS=OFF -D HMOE_BUILD_EXAMPLES=OFF -D HMOE_BUILD_BENCHMARKS=OFF
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(
  COMMAND ${CMAKE_COMMAND} --build ${BUILD_DIR} --target all_verify_interface_header_sets --parallel 2 -- -k 0
  COMMAND_ERROR_IS_FATAL ANY)
