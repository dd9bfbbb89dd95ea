// SPDX-License-Identifier: MIT
// Without exceptions a failed check calls the handler of the program, then aborts; nothing needs RTTI.
// flags: -fno-exceptions -fno-rtti
// aborts
// prints: handled: hmoe: y is 3 x 5, needed is 3 x 4 at .*argument_checks.hpp
#include <hmoe/hmoe.hpp>

#include <cstdio>
#include <source_location>

using namespace hmoe;

int main() {
  set_error_handler([](const char* message, const std::source_location& where) {
    std::printf("handled: %s at %s\n", message, where.file_name());
    std::fflush(stdout);
  });
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(4, {1, 2})},
                  routing::top_k_router<float>(4, 2, 1)};
  layer.initialize(seed{1});
  const matrix<float> x(3, 4);
  matrix<float> y(3, 4), wide(3, 5);
  const context cpu{backends::reference{}};
  layer.forward(cpu, x, y);
  layer.forward(cpu, x, wide);
}
