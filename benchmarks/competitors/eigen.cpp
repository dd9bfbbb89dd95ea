// SPDX-License-Identifier: MIT
// Eigen's matrix product, expert by expert, with Eigen's own threads.
#include <hmoe/interop/eigen.hpp>

#include "competitors.hpp"
#include "per_expert.hpp"

#include <Eigen/Core>

namespace benchmarks::competitors {

namespace {

struct eigen_product {
  static void set_threads(int threads) { Eigen::setNbThreads(threads); }
  static void prepare(hmoe::matrix_view<const float>) {}
  void operator()(hmoe::matrix_view<const float> a, hmoe::matrix_view<const float> w,
                  hmoe::matrix_view<float> c) const {
    hmoe::interop::as_eigen(c).noalias() = hmoe::interop::as_eigen(a) * hmoe::interop::as_eigen(w).transpose();
  }
};

} // namespace

subject eigen_per_expert() {
  return per_expert_subject<eigen_product>("eigen_per_expert", "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." +
                                                                   std::to_string(EIGEN_MAJOR_VERSION) + "." +
                                                                   std::to_string(EIGEN_MINOR_VERSION));
}

} // namespace benchmarks::competitors
