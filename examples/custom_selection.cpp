// SPDX-License-Identifier: MIT
// Selections of your own: one function over one token's probabilities.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <algorithm>
#include <iostream>
#include <utility>

using namespace hmoe;

/// The most probable expert, and those at least `share` times as probable as it: certain tokens get one expert,
/// uncertain ones several, but no more than `most`.
struct near_best {
  double share = 0.5;
  std::size_t most = 3;

  std::size_t max_selected(std::size_t experts) const { return std::min(most, experts); }
  template <class T>
  HMOE_HOST_DEVICE std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen) const {
    std::size_t count = 0;
    for (index_t e = no_index; count < chosen.size(); ++count) {
      e = routing::next_preferred(p, e);
      if (count != 0 && static_cast<double>(p[e]) < share * static_cast<double>(p[chosen[0]]))
        break;
      chosen[count] = e;
    }
    return count;
  }
};

template <class Selection> bool try_out(const char* name, const Selection& selection) {
  // Bounds, duplicates, ties to the lower id, the same choice on every thread: in words when something is wrong.
  const testing::report laws = testing::check_selection<float>(selection, /*experts=*/8);
  routing::router router{routing::linear<float>{64, 8}, selection, routing::renormalized{}};
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{64, widths::hybrid{.count = 8, .total = 256}}},
                  std::move(router)};
  layer.initialize(seed{1}, {.router_stddev = 0.2});

  matrix<float> x(1000, 64), y(1000, 64);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(context{backends::reference{}, executors::openmp{}}, x, y, tape);
  std::cout << name << ": " << layer.cost().activated(std::as_const(tape).assignment()).experts
            << " experts per token; laws: " << (laws.ok() ? "all kept\n" : "\n") << laws.text();
  return laws.ok();
}

int main() {
  // As a lambda: every expert that is more probable than under a uniform router.
  const auto above_average = [](vector_view<const float> p, vector_view<index_t> chosen) {
    std::size_t count = 0;
    for (index_t e = 0; e < p.size(); ++e)
      if (p[e] * static_cast<float>(p.size()) > 1)
        chosen[count++] = e;
    return count;
  };
  const bool lambda_ok = try_out("above average", above_average);
  const bool struct_ok = try_out("near the best", near_best{.share = 0.5, .most = 3});
  return lambda_ok && struct_ok ? 0 : 1;
}
