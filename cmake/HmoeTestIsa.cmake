# SPDX-License-Identifier: MIT
# Tests of single instruction-set levels of x86-64. Where the CPU lacks a level, its tests count as skipped.

file(WRITE "${PROJECT_BINARY_DIR}/cpu_level.cpp"
     "#include <hmoe/backends/isa.hpp>\n#include <cstdio>\n"
     "int main() { std::printf(\"%s\", hmoe::isa::name(hmoe::isa::cpu_level()).data()); }\n")
unset(hmoe_cpu_level_runs CACHE) # the build folder may have come from another machine
try_run(hmoe_cpu_level_runs hmoe_cpu_level_compiles "${PROJECT_BINARY_DIR}/try_cpu_level"
        "${PROJECT_BINARY_DIR}/cpu_level.cpp"
        CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${PROJECT_SOURCE_DIR}/include"
        COMPILE_DEFINITIONS -std=c++20
        COMPILE_OUTPUT_VARIABLE hmoe_cpu_level_messages
        RUN_OUTPUT_VARIABLE hmoe_cpu_level)
if(NOT hmoe_cpu_level_compiles OR NOT hmoe_cpu_level_runs EQUAL 0)
  message(FATAL_ERROR "This CPU's instruction-set level was not found:\n${hmoe_cpu_level_messages}")
endif()

# hmoe_cpu_has_level(<result> <level>): level is base, v2, v3, v4 or v4_bf16.
function(hmoe_cpu_has_level result level)
  set(levels base v2 v3 v4 v4_bf16)
  list(FIND levels ${level} wanted)
  list(FIND levels ${hmoe_cpu_level} highest)
  if(wanted LESS_EQUAL highest)
    set(${result} TRUE PARENT_SCOPE)
  else()
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

# hmoe_add_isa_test(<name> <level> <command>...)
function(hmoe_add_isa_test name level)
  hmoe_cpu_has_level(runs ${level})
  if(runs)
    add_test(NAME ${name} COMMAND ${ARGN})
    set_tests_properties(${name} PROPERTIES TIMEOUT 600)
  else()
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo
                                  "skipped: level ${level} is not on this CPU, whose level is ${hmoe_cpu_level}")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: ")
  endif()
endfunction()
