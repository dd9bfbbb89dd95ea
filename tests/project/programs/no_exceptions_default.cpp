// SPDX-License-Identifier: MIT
// Without exceptions and without a handler of the program, the message goes to stderr.
// flags: -fno-exceptions
// aborts
// prints: no_exceptions_default.cpp:[0-9]+: hmoe: 3 experts, at most 2
#include <hmoe/core/error.hpp>

int main() {
  hmoe::require(true, "never");
  hmoe::require(false, 3, " experts, at most ", 2);
}
