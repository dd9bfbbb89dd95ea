// SPDX-License-Identifier: MIT
// One program for every x86-64 CPU: runs the kernels of the best instruction-set level that this CPU has, or of the one
// that the environment variable HMOE_ISA names.
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>

#include "feed_forward.hpp"

#include <cmath>
#include <iostream>

int main() try {
  const auto make = hmoe::isa::select(make_feed_forward);
  const auto layer = make(/*d_model=*/192);

  hmoe::matrix<float> x(32, 192), y(32, 192);
  hmoe::fill_normal(hmoe::vector_view<float>(x.data(), x.size()), 1.0, hmoe::seed{1}, 0);
  layer->run(x, y);

  double squares = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    squares += double{y.data()[i]} * y.data()[i];
  std::cout << "instructions: " << hmoe::isa::long_name(hmoe::isa::selected_level(make_feed_forward)) << "\n"
            << "norm of y:    " << std::sqrt(squares) << "\n";
} catch (const hmoe::error& problem) {
  std::cerr << problem.what() << "\n";
  return 1;
}
