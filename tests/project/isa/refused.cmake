# SPDX-License-Identifier: MIT
# Kernels that hmoe_add_isa must refuse, with which words; and a sound one.
# usage: cmake -D COMPILER=... -D SCRIPT=HmoeIsa.cmake -D TOOLS=... -D BUILD_DIR=... -P refused.cmake
file(MAKE_DIRECTORY ${BUILD_DIR})

function(expect name code expected)
  file(WRITE ${BUILD_DIR}/${name}.cpp "${code}")
  execute_process(COMMAND ${COMPILER} -O2 -c ${BUILD_DIR}/${name}.cpp -o ${BUILD_DIR}/${name}.o COMMAND_ERROR_IS_FATAL ANY)
  execute_process(
    COMMAND ${CMAKE_COMMAND} ${TOOLS} -D OBJECTS=${BUILD_DIR}/${name}.o -D KEEP=hmoe_isa_run_v3 -D
            OUTPUT=${BUILD_DIR}/${name}_joined.o -P ${SCRIPT}
    OUTPUT_VARIABLE messages ERROR_VARIABLE messages)
  string(REGEX REPLACE "[ \n]+" " " messages "${messages}")
  if(expected STREQUAL "" AND NOT messages STREQUAL "" OR NOT messages MATCHES "${expected}")
    message(SEND_ERROR "${name}: expected '${expected}', got '${messages}'")
  endif()
  if(expected STREQUAL "" AND NOT EXISTS ${BUILD_DIR}/${name}_joined.o)
    message(SEND_ERROR "${name}: no object was made")
  endif()
  if(NOT expected STREQUAL "" AND EXISTS ${BUILD_DIR}/${name}_joined.o)
    message(SEND_ERROR "${name}: an object was left behind")
  endif()
endfunction()

set(function "extern \"C\" int hmoe_isa_run_v3() { return 3; }\n")
set(before_main "global objects that are made before main")
expect(sound "${function}" "")
expect(other_name "extern \"C\" int run() { return 3; }\n" "no source defines the symbol hmoe_isa_run_v3")
if(NOT TOOLS MATCHES "llvm-objcopy") # which makes these symbols local, too
  expect(unique_symbol "${function}__asm__(\".globl u\\n.type u, @gnu_unique_object\\nu: .long 1\");\n"
         "symbols would be shared with other levels")
endif()
expect(global_object "${function}int f(); int global = f();\n" "${before_main}")
expect(inline_object "${function}int f(); template <class T> int value = f(); template int value<int>;\n" "${before_main}")
expect(input_stream "#include <iostream>\n${function}int f() { std::cout << 1; return 0; }\n" "${before_main}")
expect(constructor "${function}int f(); __attribute__((constructor)) void start() { f(); }\n" "${before_main}")
