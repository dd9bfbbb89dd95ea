// SPDX-License-Identifier: MIT
// Sums in double, for gradient checks.
#include "run_passes.hpp"

using namespace hmoe::python;

void HMOE_ISA::forward_double(const forward_pass& pass) {
  pass.bank->gated ? run_forward<double, double, 2>(pass) : run_forward<double, double, 1>(pass);
}
void HMOE_ISA::backward_double(const backward_pass& pass) {
  pass.bank->gated ? run_backward<double, double, 2>(pass) : run_backward<double, double, 1>(pass);
}
