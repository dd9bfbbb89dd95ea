// SPDX-License-Identifier: MIT
// Sums in float: tensors of float and of bfloat16.
#include "in_place_forward.hpp"
#include "run_passes.hpp"

using namespace hmoe::python;
using hmoe::bfloat16;

void HMOE_ISA::forward_float(const forward_pass& pass) {
  const bool narrow = pass.bank->type == scalar::bfloat16;
  if (!pass.record && narrow)
    pass.bank->gated ? in_place_forward<bfloat16_rows, 2>::run(pass) : in_place_forward<bfloat16_rows, 1>::run(pass);
  else if (!pass.record)
    pass.bank->gated ? in_place_forward<float_rows, 2>::run(pass) : in_place_forward<float_rows, 1>::run(pass);
  else if (narrow)
    pass.bank->gated ? run_forward<float, bfloat16, 2>(pass) : run_forward<float, bfloat16, 1>(pass);
  else
    pass.bank->gated ? run_forward<float, float, 2>(pass) : run_forward<float, float, 1>(pass);
}
void HMOE_ISA::backward_float(const backward_pass& pass) {
  pass.bank->type == scalar::bfloat16
      ? (pass.bank->gated ? run_backward<float, bfloat16, 2>(pass) : run_backward<float, bfloat16, 1>(pass))
      : (pass.bank->gated ? run_backward<float, float, 2>(pass) : run_backward<float, float, 1>(pass));
}
