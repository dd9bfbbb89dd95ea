# SPDX-License-Identifier: MIT
# Toolchain: clang 19, on which the checks run, or else another one that is new enough.
if(NOT HMOE_CLANG)
  include("${CMAKE_CURRENT_LIST_DIR}/HmoeCompiler.cmake")
  hmoe_find_clang(clang)
  if(NOT clang)
    message(FATAL_ERROR "${clang_REASON}")
  endif()
  set(HMOE_CLANG "${clang}" CACHE FILEPATH "clang++")
endif()
set(CMAKE_CXX_COMPILER "${HMOE_CLANG}")
