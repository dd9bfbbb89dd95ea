# SPDX-License-Identifier: MIT
# Builds and runs the consumer project from nothing.
# usage: cmake -D COMPILER=... -D SOURCE_DIR=... -D BUILD_DIR=... -D (HMOE_SOURCE_DIR|HMOE_BUILD_DIR)=... -P consumer.cmake
# The library comes as a subfolder from HMOE_SOURCE_DIR, or it is installed from HMOE_BUILD_DIR first.
file(REMOVE_RECURSE ${BUILD_DIR})
if(HMOE_BUILD_DIR)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${HMOE_BUILD_DIR} --prefix ${BUILD_DIR}/prefix
                  COMMAND_ERROR_IS_FATAL ANY)
endif()
execute_process(
  COMMAND ${CMAKE_COMMAND} -G Ninja -S ${SOURCE_DIR} -B ${BUILD_DIR} -D CMAKE_CXX_COMPILER=${COMPILER}
          -D CMAKE_PREFIX_PATH=${BUILD_DIR}/prefix "-DHMOE_SOURCE_DIR=${HMOE_SOURCE_DIR}"
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD_DIR} --parallel 2 COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BUILD_DIR}/core_only COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BUILD_DIR}/all_components COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BUILD_DIR}/isa_levels COMMAND_ERROR_IS_FATAL ANY)
if(EXISTS ${BUILD_DIR}/device_kernels)
  execute_process(COMMAND ${BUILD_DIR}/device_kernels COMMAND_ERROR_IS_FATAL ANY)
endif()
