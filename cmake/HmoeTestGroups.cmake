# SPDX-License-Identifier: MIT
# Sources of tests are compiled in groups: what several of them instantiate, and what each of them includes, then costs
# its time once. In a group's translation unit all includes stand first, and every source in a namespace of its own, so
# that names which its neighbours have too do no harm.

# As a script: writes the translation unit OUTPUT of SOURCES.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  set(includes)
  set(namespaces "")
  set(number 0)
  foreach(source IN LISTS SOURCES)
    file(STRINGS "${source}" lines REGEX "^#include ")
    foreach(line IN LISTS lines)
      string(REGEX MATCH "^#include [<\"][^>\"]+[>\"]" include "${line}")
      list(APPEND includes "${include}")
    endforeach()
    string(APPEND namespaces "namespace group_${number} {\n#include \"${source}\"\n}\n")
    math(EXPR number "${number} + 1")
  endforeach()
  list(REMOVE_DUPLICATES includes)
  list(JOIN includes "\n" includes)
  file(WRITE "${OUTPUT}" "// Made by HmoeTestGroups.cmake.\n${includes}\n${namespaces}")
  return()
endif()

option(HMOE_GROUP_TESTS "Compile several sources of tests together" ON)
set(hmoe_group_bytes 40000)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang") # takes less memory: a sixth of its time is saved
  set(hmoe_group_bytes 120000)
endif()
set(hmoe_group_script "${CMAKE_CURRENT_LIST_FILE}")

# hmoe_group_unit(<unit> <source>...): makes the translation unit of the sources.
function(hmoe_group_unit unit)
  cmake_path(GET unit FILENAME name)
  add_custom_command(
    OUTPUT "${unit}"
    COMMAND "${CMAKE_COMMAND}" "-DOUTPUT=${unit}" "-DSOURCES=${ARGN}" -P "${hmoe_group_script}"
    DEPENDS ${ARGN} "${hmoe_group_script}"
    COMMENT "Grouping ${name}"
    VERBATIM)
endfunction()

# hmoe_group_sources(<result> <target> <source>...): the translation units of a program of tests.
function(hmoe_group_sources result target)
  set(units)
  set(group)
  set(bytes 0)
  set(number 0)
  if(NOT HMOE_GROUP_TESTS)
    set(${result} ${ARGN} PARENT_SCOPE)
    return()
  endif()
  # A last, empty source ends the last group.
  foreach(source IN LISTS ARGN ITEMS "")
    set(size 0)
    set(alone FALSE)
    if(source)
      cmake_path(ABSOLUTE_PATH source)
      file(SIZE "${source}" size)
      # What belongs into a namespace of the library cannot stand in another one.
      file(STRINGS "${source}" foreign REGEX "^(namespace hmoe|template <> struct (hmoe|std)::)" LIMIT_COUNT 1)
      if(foreign)
        list(APPEND units "${source}")
        continue()
      endif()
    endif()
    math(EXPR bytes "${bytes} + ${size}")
    if(group AND (NOT source OR bytes GREATER hmoe_group_bytes))
      set(unit "${CMAKE_CURRENT_BINARY_DIR}/groups/${target}_${number}.cpp")
      hmoe_group_unit("${unit}" ${group})
      list(APPEND units "${unit}")
      set(group)
      set(bytes ${size})
      math(EXPR number "${number} + 1")
    endif()
    list(APPEND group ${source})
  endforeach()
  set(${result} ${units} PARENT_SCOPE)
endfunction()
