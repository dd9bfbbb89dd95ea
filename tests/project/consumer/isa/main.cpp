// SPDX-License-Identifier: MIT
#include "kernel.hpp"

int main() { return hmoe::isa::select(multiply_add)(2, 3, 4) == 10 ? 0 : 1; }
