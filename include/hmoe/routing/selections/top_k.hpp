// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <cstddef>

namespace hmoe::routing {

/// "Given at run time", as Eigen::Dynamic.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// The K most probable experts (Shazeer et al. 2017, arXiv 1701.06538; HMoE uses K = 2); ties to the lower id.
/// top_k<2>{} fixes K at compile time, top_k<>{2} at run time; the results are the same. top_k<2, 8>{} also fixes the
/// number of experts N, as in top_k<2, widths::fixed<9, 11, 13>::count>: a router for another number is an hmoe::error,
/// and K > N does not compile.
template <std::size_t K = dynamic, std::size_t N = dynamic> class top_k {
  static_assert(K != 0, "hmoe::routing::top_k: K is 0: a token needs at least 1 expert");
  static_assert(
      K == dynamic || N == dynamic || K <= N,
      "hmoe::routing::top_k: K is larger than N, the number of experts: a token can have each expert once only");

public:
  constexpr top_k() noexcept
    requires(K != dynamic)
  = default;
  HMOE_HOST_DEVICE constexpr top_k(std::size_t k) noexcept
    requires(K == dynamic)
      : k_(k) {}

  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t k() const noexcept {
    if constexpr (K == dynamic)
      return k_;
    else
      return K;
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t max_selected(std::size_t) const noexcept { return k(); }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("k", k()); }
  void validate(std::size_t experts) const {
    require(N == dynamic || N == experts, "top_k of ", N, " experts in a router of ", experts);
    require(k() >= 1 && k() <= experts, "top_k with k = ", k(), " for ", experts, " experts: k must be 1 to ", experts);
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p,
                                                    vector_view<index_t> chosen) const noexcept {
    index_t last = no_index;
    for (std::size_t i = 0; i < k(); ++i)
      chosen[i] = last = next_preferred(p, last);
    return k();
  }

private:
  std::size_t k_ = K;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
