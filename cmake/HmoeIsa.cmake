# SPDX-License-Identifier: MIT
# hmoe_add_isa: kernels compiled once per instruction-set level, one of which is picked at run time (docs/isa.md).
#
#   hmoe_add_isa(<target> SOURCES <file>... FUNCTIONS <name>... [LEVELS <level>...])
#
# <target>   the finished program or library that calls the functions: the kernels are compiled with its options,
#            definitions, include folders and libraries; it should itself be built without -march
# SOURCES    translation units with the kernels; they do not belong to the target's own sources
# FUNCTIONS  what they define in the namespace HMOE_ISA, each declared by HMOE_ISA_FUNCTION (hmoe/backends/isa.hpp)
# LEVELS     of base, v2, v3, v4 and v4_bf16; by default all but base. Away from x86-64 there is base alone.
#
# A level's objects become one, in which only the functions stay global. Otherwise the linker would merge inline
# functions and templates of different levels into one, and the program would run that one on every CPU.

# As a script: joins OBJECTS to OUTPUT, where only the symbols KEEP stay global.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  set(joined "${OUTPUT}.joined.o")
  execute_process(COMMAND "${LINKER}" -r -o "${joined}" ${OBJECTS} COMMAND_ERROR_IS_FATAL ANY)
  list(TRANSFORM KEEP PREPEND "--keep-global-symbol=" OUTPUT_VARIABLE keep)
  # Section groups of the same name would be merged even though their symbols are local.
  execute_process(COMMAND "${OBJCOPY}" ${keep} --remove-section=.group "${joined}" "${OUTPUT}"
                  COMMAND_ERROR_IS_FATAL ANY)
  file(REMOVE "${joined}")

  execute_process(COMMAND "${NM}" -g --defined-only "${OUTPUT}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  set(others "${symbols}")
  foreach(name IN LISTS KEEP)
    string(REGEX REPLACE "[^\n]* ${name}\n" "" others "${others}")
    if(NOT symbols MATCHES " T ${name}\n")
      file(REMOVE "${OUTPUT}")
      message(FATAL_ERROR "hmoe_add_isa: no source defines the symbol ${name}: does the kernel include the header with "
                          "HMOE_ISA_FUNCTION, and define the function in the namespace HMOE_ISA?")
    endif()
  endforeach()
  # Sanitizers register their initialisers with a priority of up to 99; these are plain code.
  execute_process(COMMAND "${OBJDUMP}" -h "${OUTPUT}" OUTPUT_VARIABLE sections COMMAND_ERROR_IS_FATAL ANY)
  if(sections MATCHES " \\.(init_array|fini_array|ctors|dtors)(\\.0*[1-9][0-9][0-9]+)? ")
    file(REMOVE "${OUTPUT}")
    message(FATAL_ERROR "hmoe_add_isa: these kernels have global objects that are made before main, with instructions "
                        "which the CPU may lack. Make them constexpr, constinit or local to a function, and do not "
                        "include <iostream>. Objects: ${OBJECTS}")
  endif()
  if(others)
    file(REMOVE "${OUTPUT}")
    message(FATAL_ERROR "hmoe_add_isa: these symbols would be shared with other levels:\n${others}")
  endif()
  return()
endif()

function(hmoe_add_isa target)
  set(script "${CMAKE_CURRENT_FUNCTION_LIST_FILE}")
  set(march_base "")
  set(march_v2 -march=x86-64-v2)
  set(march_v3 -march=x86-64-v3)
  set(march_v4 -march=x86-64-v4)
  set(march_v4_bf16 -march=x86-64-v4 -mavx512bf16 -mavx512vnni)

  cmake_parse_arguments(PARSE_ARGV 1 isa "" "" "SOURCES;FUNCTIONS;LEVELS")
  if(NOT TARGET ${target} OR NOT isa_SOURCES OR NOT isa_FUNCTIONS OR isa_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "usage: hmoe_add_isa(<target> SOURCES <file>... FUNCTIONS <name>... [LEVELS <level>...])")
  endif()
  if(NOT CMAKE_OBJCOPY OR NOT CMAKE_NM OR NOT CMAKE_OBJDUMP OR NOT CMAKE_LINKER OR WIN32 OR APPLE)
    message(FATAL_ERROR "hmoe_add_isa needs GNU or LLVM binary utilities and ELF objects")
  endif()
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(isa_LEVELS base)
  elseif(NOT isa_LEVELS)
    set(isa_LEVELS v2 v3 v4 v4_bf16)
  endif()

  # An option of a source comes after those of targets and their libraries: the level's -march is the last one.
  set_property(SOURCE ${isa_SOURCES} APPEND PROPERTY COMPILE_OPTIONS "$<TARGET_PROPERTY:HMOE_ISA_OPTIONS>")
  get_property(several_configurations GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
  set(configuration "")
  if(several_configurations)
    set(configuration "_$<CONFIG>")
  endif()
  set(objects "")
  foreach(level IN LISTS isa_LEVELS)
    if(NOT DEFINED march_${level})
      message(FATAL_ERROR "hmoe_add_isa: there is no level ${level}; there are base, v2, v3, v4 and v4_bf16")
    endif()
    set(kernels ${target}_isa_${level})
    add_library(${kernels} OBJECT ${isa_SOURCES})
    target_compile_definitions(${kernels} PRIVATE HMOE_ISA=${level} $<TARGET_PROPERTY:${target},COMPILE_DEFINITIONS>)
    target_compile_options(${kernels} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_OPTIONS>)
    target_include_directories(${kernels} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
    target_link_libraries(${kernels} PRIVATE $<TARGET_PROPERTY:${target},LINK_LIBRARIES>)
    foreach(property CXX_STANDARD CXX_STANDARD_REQUIRED CXX_EXTENSIONS POSITION_INDEPENDENT_CODE)
      get_target_property(value ${target} ${property})
      if(NOT value MATCHES "-NOTFOUND$")
        set_target_properties(${kernels} PROPERTIES ${property} ${value})
      endif()
    endforeach()
    get_target_property(type ${target} TYPE)
    if(type MATCHES "^(SHARED|MODULE)_LIBRARY$")
      set_target_properties(${kernels} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    endif()

    set(options ${march_${level}} -fno-lto)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      list(APPEND options -fno-gnu-unique) # objcopy does not make these symbols local
      if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13 AND level MATCHES "^v4")
        # Its AVX-512 intrinsics read an uninitialised variable on purpose (GCC bug 105593).
        list(APPEND options -Wno-uninitialized -Wno-maybe-uninitialized)
      endif()
    elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      # The address sanitizer finds its table of globals through symbols that are no longer global.
      list(APPEND options -mllvm -asan-globals=0)
    endif()
    set_target_properties(${kernels} PROPERTIES HMOE_ISA_OPTIONS "${options}" INTERPROCEDURAL_OPTIMIZATION OFF)

    set(object "${CMAKE_CURRENT_BINARY_DIR}/${kernels}${configuration}.o")
    list(TRANSFORM isa_FUNCTIONS REPLACE "(.+)" "hmoe_isa_\\1_${level}" OUTPUT_VARIABLE symbols)
    add_custom_command(
      OUTPUT "${object}"
      COMMAND "${CMAKE_COMMAND}" "-DOBJECTS=$<TARGET_OBJECTS:${kernels}>" "-DKEEP=${symbols}" "-DOUTPUT=${object}"
              "-DLINKER=${CMAKE_LINKER}" "-DOBJCOPY=${CMAKE_OBJCOPY}" "-DOBJDUMP=${CMAKE_OBJDUMP}" "-DNM=${CMAKE_NM}" -P
              "${script}"
      DEPENDS $<TARGET_OBJECTS:${kernels}> "${script}"
      COMMENT "Joining the kernels of ${target} for ${level}"
      VERBATIM)
    list(APPEND objects "${object}")
    add_dependencies(${target} ${kernels}) # Makefiles have no rule for another target's objects
  endforeach()

  # The table of each function: its forms, ended by a null pointer.
  set(text "// Made by hmoe_add_isa.\n#include <hmoe/backends/isa.hpp>\n\nextern \"C\" {\n")
  foreach(name IN LISTS isa_FUNCTIONS)
    set(entries "")
    foreach(level base v2 v3 v4 v4_bf16)
      if(level IN_LIST isa_LEVELS)
        string(APPEND text "void hmoe_isa_${name}_${level}();\n")
        string(APPEND entries "    {hmoe::isa::level::${level}, hmoe_isa_${name}_${level}},\n")
      endif()
    endforeach()
    string(APPEND text "extern const hmoe::isa::detail::entry hmoe_isa_${name}[];\n"
           "const hmoe::isa::detail::entry hmoe_isa_${name}[] = {\n${entries}    {hmoe::isa::level::base, nullptr}};\n")
  endforeach()
  set(table "${CMAKE_CURRENT_BINARY_DIR}/${target}_isa.cpp")
  file(CONFIGURE OUTPUT "${table}" CONTENT "${text}}\n" @ONLY)
  target_sources(${target} PRIVATE "${table}" ${objects})
  set_property(TARGET ${target} APPEND PROPERTY HMOE_ISA_OBJECTS ${objects})
endfunction()
