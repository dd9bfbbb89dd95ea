// SPDX-License-Identifier: MIT
// A weighting of your own: how much each of a token's chosen experts counts.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/weighting_laws.hpp>

#include <iostream>

using namespace hmoe;

/// w_i = p_i² / Σ_j p_j² over the chosen experts: between renormalized and the best expert alone. All 0 where every
/// chosen probability is 0.
struct sharpened {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    const T sum = sum_of_squares(p, chosen);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = sum > T(0) ? p[chosen[i]] * p[chosen[i]] / sum : T(0);
  }
  /// ∂L/∂p_i += 2 p_i / Σ p² · (dw_i − Σ_j w_j dw_j)
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                        const Values& w, const Values& dw, vector_view<T>,
                                        vector_view<T> d_p) noexcept {
    const T sum = sum_of_squares(p, chosen);
    if (!(sum > T(0)))
      return;
    T mean = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      mean += w[i] * dw[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += 2 * p[chosen[i]] / sum * (dw[i] - mean);
  }

private:
  template <class T>
  HMOE_HOST_DEVICE static T sum_of_squares(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
    T sum = 0;
    for (const index_t e : chosen)
      sum += p[e] * p[e];
    return sum;
  }
};

int main() {
  const testing::report laws = testing::check_weighting<double>(sharpened{}, /*experts=*/8, {.sums_to_one = true});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{16, {8, 16, 24, 32}}},
                  routing::router{routing::linear<float>{16, 4}, routing::top_k<>{2}, sharpened{}}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});
  matrix<float> x(4, 16), y(4, 16);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(context{backends::reference{}}, x, y, tape);
  std::cout << "weights of the first token: " << tape.assignment().weights()[0] << " and "
            << tape.assignment().weights()[1] << "\n";
  return laws.ok() ? 0 : 1;
}
