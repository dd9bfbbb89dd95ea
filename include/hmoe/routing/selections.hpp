// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/routing/selection.hpp>

#include <cmath>

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

/// The shortest prefix of the experts in descending probability whose probabilities sum to p or more, at least one
/// (Huang et al. 2024, arXiv 2403.07652; HMoE uses p = 0.6); ties to the lower id. The sum runs in that order.
struct top_p {
  double p;

  HMOE_HOST_DEVICE constexpr top_p(double threshold) noexcept : p(threshold) {}
  void validate(std::size_t) const { require(p > 0 && p <= 1, "top_p with p = ", p, ": p must be in (0, 1]"); }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> row,
                                                    vector_view<index_t> chosen) const noexcept {
    index_t last = no_index;
    double sum = 0;
    std::size_t count = 0;
    do {
      chosen[count++] = last = next_preferred(row, last);
      sum += static_cast<double>(row[last]);
    } while (!(sum >= p) && count < row.size()); // "not at least" also walks on over NaN
    return count;
  }
};

/// Every expert whose probability is at least `minimum`: between none and all of them. One whose probability is NaN
/// is chosen too, so that it shows in the output.
struct threshold {
  double minimum;

  HMOE_HOST_DEVICE constexpr threshold(double value) noexcept : minimum(value) {}
  void validate(std::size_t) const {
    require(std::isfinite(minimum), "threshold with minimum = ", minimum, ": it must be finite");
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> row,
                                                    vector_view<index_t> chosen) const noexcept {
    std::size_t count = 0;
    for (index_t i = 0; i < row.size(); ++i)
      if (!(static_cast<double>(row[i]) < minimum))
        chosen[count++] = i;
    return count;
  }
};

} // namespace hmoe::routing
