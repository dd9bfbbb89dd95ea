// SPDX-License-Identifier: MIT
// expect: hmoe: the backend has forward_bank or backward_bank, but no `template <class Bank> bool takes_bank
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

#include <type_traits>

using namespace hmoe;

struct silent : backends::reference {
#ifdef HMOE_MUST_COMPILE
  template <class Bank> static std::false_type takes_bank(const Bank&) { return {}; }
#else
  template <class Bank> static std::false_type take_bank(const Bank&) { return {}; }
#endif
  template <class Context, class Bank>
  void forward_bank(const Context&, const Bank&, vector_view<const expert_rows<typename Bank::value_type>>) const {}
};

void run(const moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>& layer,
         matrix_view<const float> x, matrix_view<float> y) {
  layer.forward(context{silent{}}, x, y);
}
