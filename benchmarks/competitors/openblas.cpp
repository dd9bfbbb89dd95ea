// SPDX-License-Identifier: MIT
// OpenBLAS, expert by expert. OPENBLAS_CORETYPE in the environment would choose its kernel: scripts/bench unsets it.
#include "competitors.hpp"
#include "per_expert.hpp"

#include <cblas.h>

namespace benchmarks::competitors {

namespace {

struct openblas_product {
  static void set_threads(int threads) { openblas_set_num_threads(threads); }
  static void prepare(hmoe::matrix_view<const float>) {}
  void operator()(hmoe::matrix_view<const float> a, hmoe::matrix_view<const float> w,
                  hmoe::matrix_view<float> c) const {
    const auto size = [](std::size_t n) { return static_cast<blasint>(n); };
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(a.rows()), size(w.rows()), size(a.cols()), 1.0F, a.data(),
                size(a.stride()), w.data(), size(w.stride()), 0.0F, c.data(), size(c.stride()));
  }
};

} // namespace

subject openblas_per_expert() {
  return per_expert_subject<openblas_product>("openblas_per_expert", std::string(openblas_get_config()) + ", kernel " +
                                                                         openblas_get_corename());
}

} // namespace benchmarks::competitors
