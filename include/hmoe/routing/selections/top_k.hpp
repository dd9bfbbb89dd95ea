// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <cstddef>

namespace hmoe::routing {

/// "Given at run time", as Eigen::Dynamic.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// The K most probable experts (Shazeer et al. 2017, arXiv 1701.06538; HMoE uses K = 2); ties to the lower id.
/// top_k<2>{} fixes K at compile time, top_k<>{2} at run time; the results are the same.
template <std::size_t K = dynamic> class top_k {
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
  void validate(std::size_t experts) const {
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
