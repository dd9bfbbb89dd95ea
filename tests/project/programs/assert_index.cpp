// SPDX-License-Identifier: MIT
// Without NDEBUG an index beyond its matrix ends the program with the numbers.
// flags: -O0
// flags: -O1 -DNDEBUG -DHMOE_ASSERTIONS=1
// aborts
// prints: hmoe: expert 7 is out of range: there are 1
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>

int main() {
  hmoe::experts::glu_bank<float, hmoe::experts::silu> bank(4, {2});
  return bank.gate(7)(0, 0) == 0 ? 0 : 1;
}
