// SPDX-License-Identifier: MIT
// Sums in float: tensors of float and of bfloat16.
#include "bfloat16_products.hpp"
#include "float_products.hpp"
#include "in_place_forward.hpp"
#include "in_place_passes.hpp"
#include "pair_products.hpp"
#include "run_passes.hpp"

using namespace hmoe::python;
using hmoe::bfloat16;

namespace {

template <std::size_t Lanes> void forward(const forward_pass& pass) {
  if (pass.bank->type == scalar::float32 && pass.bank->transposed)
    return in_place_passes<float_products, Lanes>::run(pass);
  if (pass.bank->type == scalar::float32)
    return pass.record ? run_forward<float, float, Lanes>(pass) : in_place_forward<float_rows, Lanes>::run(pass);
#if defined(__AVX512BF16__)
  if (pass.record)
    return in_place_passes<pair_products, Lanes>::run(pass);
  if (chosen_bfloat16_products() == bfloat16_products::pairs)
    return in_place_forward<bfloat16_pairs, Lanes>::run(pass);
#else
  if (pass.record)
    return run_forward<float, bfloat16, Lanes>(pass);
#endif
  in_place_forward<widened_bfloat16, Lanes>::run(pass);
}
template <std::size_t Lanes> void backward(const backward_pass& pass) {
  if (pass.bank->type == scalar::float32 && pass.bank->transposed)
    return in_place_passes<float_products, Lanes>::run(pass);
  if (pass.bank->type == scalar::float32)
    return run_backward<float, float, Lanes>(pass);
#if defined(__AVX512BF16__)
  in_place_passes<pair_products, Lanes>::run(pass);
#else
  run_backward<float, bfloat16, Lanes>(pass);
#endif
}

} // namespace

void HMOE_ISA::forward_float(const forward_pass& pass) { pass.bank->gated ? forward<2>(pass) : forward<1>(pass); }
void HMOE_ISA::backward_float(const backward_pass& pass) { pass.bank->gated ? backward<2>(pass) : backward<1>(pass); }
