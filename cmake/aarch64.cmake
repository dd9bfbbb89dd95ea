# SPDX-License-Identifier: MIT
# Toolchain: Debian's g++ for 64-bit ARM; its programs run in qemu. The headers that the tests need are the same for
# all processors.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
# Debian keeps the package file of xsimd, which is nothing but headers, in the folder of the host's processor.
file(GLOB xsimd_DIR /usr/lib/*-linux-gnu/cmake/xsimd)
