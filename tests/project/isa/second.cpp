// SPDX-License-Identifier: MIT
#include "compiled_for.hpp"
#include "kernel.hpp"

std::string HMOE_ISA::compiled_and_calls() { return compiled_for + std::string(" ") + std::to_string(calls); }
