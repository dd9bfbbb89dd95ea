// SPDX-License-Identifier: MIT
// expect: hmoe: the backend takes this kind of bank, but its forward_bank, backward_bank, lay_out_forward_bank or lay_out_backward_bank is missing or does not fit
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

#include <type_traits>

using namespace hmoe;

struct only_forward : backends::reference {
#ifdef HMOE_MUST_COMPILE
  template <class Bank> static std::false_type takes_bank(const Bank&) { return {}; }
#else
  template <class Bank> static bool takes_bank(const Bank&) { return true; }
#endif
  template <class Context, class Bank>
  void forward_bank(const Context&, const Bank&, vector_view<const expert_rows<typename Bank::value_type>>) const {}
};

void run(const moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>& layer,
         matrix_view<const float> x, matrix_view<float> y) {
  layer.forward(context{only_forward{}}, x, y);
}
