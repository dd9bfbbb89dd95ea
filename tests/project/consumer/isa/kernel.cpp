// SPDX-License-Identifier: MIT
#include "kernel.hpp"

float HMOE_ISA::multiply_add(float a, float b, float c) { return a * b + c; }
