# SPDX-License-Identifier: MIT
# Compiles every public header on its own, with the warnings that our own programs use.
# usage: cmake -D COMPILER=... -D SOURCE_DIR=... -D BUILD_DIR=... -P headers_alone.cmake
execute_process(
  COMMAND
    ${CMAKE_COMMAND} -G Ninja -S ${SOURCE_DIR} -B ${BUILD_DIR} --log-level=WARNING
    -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_VERIFY_INTERFACE_HEADER_SETS=ON
    "-DCMAKE_CXX_FLAGS=-O0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
    -D HMOE_BUILD_TESTS=OFF -D HMOE_BUILD_EXAMPLES=OFF -D HMOE_BUILD_BENCHMARKS=OFF
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(
  COMMAND ${CMAKE_COMMAND} --build ${BUILD_DIR} --target all_verify_interface_header_sets --parallel 2 -- -k 0
  COMMAND_ERROR_IS_FATAL ANY)
