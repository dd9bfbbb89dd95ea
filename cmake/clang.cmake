# SPDX-License-Identifier: MIT
# Toolchain: clang 19, on which the checks run, or else the newest clang from 16 on.
find_program(HMOE_CLANG NAMES clang++-19 clang++-22 clang++-21 clang++-20 clang++-18 clang++-17 clang++-16 clang++
             REQUIRED)
set(CMAKE_CXX_COMPILER "${HMOE_CLANG}")
