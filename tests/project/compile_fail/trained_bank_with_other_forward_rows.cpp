// SPDX-License-Identifier: MIT
// expect: hmoe: a bank's forward_rows does not fit: expected is `template <class Context> void forward_rows
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct mine : experts::glu_bank<float, experts::silu> {
  using experts::glu_bank<float, experts::silu>::glu_bank;
#ifdef HMOE_MUST_COMPILE
  template <class Context> void forward_rows(const Context&, vector_view<const expert_rows<float>>) const {}
#else
  template <class Context> void forward_rows(const Context&, vector_view<expert_rows<float>>) const {}
#endif
};

void run(const expert_set<mine>& experts, vector_view<const expert_rows<float>> rows) {
  experts.forward_rows(context{backends::reference{}}, rows);
}
