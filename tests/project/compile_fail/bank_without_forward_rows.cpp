// SPDX-License-Identifier: MIT
// expect: a bank of this set computes neither one expert nor several: give it forward_rows
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct doubling_bank {
  using value_type = float;
  static std::size_t size() { return 4; }
  static std::size_t d_model() { return 8; }
  static std::size_t width(std::size_t) { return 0; }
  static std::size_t saved_per_row(std::size_t) { return 0; }
  static std::size_t scratch_per_row(std::size_t) { return 0; }
  static double flops_per_row(std::size_t) { return 8; }
  static std::size_t parameter_count(std::size_t) { return 0; }
  static std::size_t bytes(std::size_t) { return 0; }
#ifdef HMOE_MUST_COMPILE
  template <class Context> void forward_rows(const Context&, vector_view<const expert_rows<float>>) const {}
#endif
};

void run(matrix_view<const float> x, matrix_view<float> y) {
  const moe_layer layer{expert_set{doubling_bank{}}, routing::top_k_router<float>{8, 4, 2}};
  layer.forward(context{backends::reference{}}, x, y);
}
