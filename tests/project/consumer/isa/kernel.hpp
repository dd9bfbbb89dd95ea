// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/isa.hpp>

HMOE_ISA_FUNCTION(multiply_add, float(float a, float b, float c));
