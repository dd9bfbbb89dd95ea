# SPDX-License-Identifier: MIT
# Which of several compilers is taken, and what is said where none is.
# usage: cmake -D SCRIPT=HmoeCompiler.cmake -D FOLDER=... -P find_compiler.cmake
include(${SCRIPT})

# A compiler that says nothing but its version.
function(make_compiler name macros)
  file(WRITE "${FOLDER}/${name}" "#!/bin/sh\nprintf '${macros}'\n")
  file(CHMOD "${FOLDER}/${name}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endfunction()
make_compiler(gnu_11 "#define __GNUC__ 11\\n")
make_compiler(gnu_12 "#define __GNUC__ 12\\n")
make_compiler(clang_14 "#define __GNUC__ 4\\n#define __clang_major__ 14\\n")
make_compiler(clang_16 "#define __GNUC__ 4\\n#define __clang_major__ 16\\n")
make_compiler(gnu_that_is_clang "#define __GNUC__ 40\\n#define __clang_major__ 19\\n")

function(expect kind candidates expected reason)
  list(TRANSFORM candidates PREPEND "${FOLDER}/")
  hmoe_find_compiler(found ${kind} ${candidates})
  if(expected)
    set(expected "${FOLDER}/${expected}")
  endif()
  if(NOT found STREQUAL expected OR NOT found_REASON MATCHES "${reason}")
    message(SEND_ERROR "${kind} of ${candidates}: expected '${expected}' (${reason}), got '${found}' (${found_REASON})")
  endif()
endfunction()
expect(GNU "gnu_11;gnu_12" gnu_12 "^$")
expect(GNU "gnu_that_is_clang;gnu_12" gnu_12 "^$")
expect(GNU "gnu_11" "" "^GNU 12 or later is needed: .*gnu_11 is version 11$")
expect(GNU "gnu_that_is_clang" "" "gnu_that_is_clang is another compiler$")
expect(Clang "clang_14;gnu_12;clang_16" clang_16 "^$")
expect(Clang "clang_14;absent" "" "^Clang 16 or later is needed: .*clang_14 is version 14$")
expect(Clang "absent" "" "^Clang 16 or later is needed: there is none$")
