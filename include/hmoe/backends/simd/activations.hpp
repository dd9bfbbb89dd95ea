// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/backends/simd/exponential.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/gating.hpp>

#include <xsimd/xsimd.hpp>

#include <cstdint>
#include <numbers>

namespace hmoe::backends {

/// What backends::simd runs in place of an activation or a gating, over vectors V of float or double; without one it
/// runs the function itself, element by element. For an activation: static value(V z) and derivative(V z); for a
/// gating: static value(gate, V g, V u) and backward(gate, V g, V u, V da, V& dg, V& du). Can be specialised for a
/// user's own. The errors of these are in docs/execution.md.
template <class Function> struct vector_form {
  static constexpr bool available = false;
};

namespace simd_detail {

/// ½erfc(a/√2)·e^{a²/2}·(a + k) as a polynomial in (a − k)/(a + k), minimax in the relative error, for a from 0 to
/// `largest`, where e^{−a²/2} has become 0.
template <class T> struct normal_tail_constants;
template <> struct normal_tail_constants<float> {
  static constexpr std::uint32_t upper_half = 0xfffff000U;
  static constexpr float largest = 14.6F;
  static constexpr float k = 3;
  static constexpr float p[] = {0.72908369169050580102F,    -0.50933216647174539628F,    0.23001769319518391616F,
                                -0.047258154025245313228F,  -0.010462257902901737431F,   0.0069373307948279304248F,
                                0.0010163887593561155207F,  -0.00094683070126760369216F, -0.00020296366253400064984F,
                                0.000052402429454546777826F};
};
template <> struct normal_tail_constants<double> {
  static constexpr std::uint64_t upper_half = 0xfffffffff8000000U;
  static constexpr double largest = 39;
  static constexpr double k = 5;
  static constexpr double p[] = {
      0.76919304975006295591,     -0.66538250289005678119,   0.495305615969977299,        -0.31353315667129619583,
      0.1650203661703374176,      -0.069118638706569989623,  0.020795066800837706302,     -0.0029933767667057321454,
      -0.00079786940801010980967, 0.00054489903339072460247, -0.000059375674789784520363, -0.000049762654908572888206,
      0.000016681041211648636597, 3.980384689446275417e-6,   -2.7689524522005668142e-6,   -3.3553715453707115298e-7,
      4.328840641861170283e-7,    4.0880426891885549324e-8,  -6.601149981038274606e-8,    -8.2947611924762429516e-9,
      7.9421745525162003565e-9,   1.4319603257813276649e-9,  -3.0289948815023586155e-10};
};

/// Of the normal distribution: Φ(z), 1 − Φ(z) and e^{−z²/2}.
template <class V> struct normal_distribution {
  V below, above, exponential;
};
template <class V> [[nodiscard, gnu::always_inline]] inline normal_distribution<V> normal(const V& z) noexcept {
  using constants = normal_tail_constants<typename V::value_type>;
  using bits = xsimd::batch<typename exponential_constants<typename V::value_type>::bits, typename V::arch_type>;
  const V distance = xsimd::abs(z);
  const V a = xsimd::select(distance > V(constants::largest), V(constants::largest), distance); // NaN passes
  // The square of the upper half of a's digits is exact; the rest of a² is small: e^{−a²/2} loses no digits.
  const V head = xsimd::bitwise_cast<V>(xsimd::bitwise_cast<bits>(a) & bits(constants::upper_half));
  const V e = exponential_of_sum<argument::never_positive>(head * head * V(-0.5F), (a - head) * (a + head) * V(-0.5F));
  const V inverse = quotient(V(1), a + V(constants::k));
  const V scaled = polynomial((a - V(constants::k)) * inverse, constants::p) * inverse;
  const V tail = scaled * e, other = xsimd::fnma(scaled, e, V(1));
  const auto negative = z < V(0);
  return {xsimd::select(negative, tail, other), xsimd::select(negative, other, tail), e};
}

/// 2√(2/π) and 0.044715 times that: y(z) = scale·z + cubic·z³, with ½(1 + tanh(y/2)) = σ(y).
template <class T> struct gelu_tanh_constants {
  static constexpr T scale = 2 * std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;
  static constexpr T cubic = scale * static_cast<T>(0.044715);
};
template <class V> [[nodiscard, gnu::always_inline]] inline logistic_pair<V> gelu_tanh_sigma(const V& z) noexcept {
  using constants = gelu_tanh_constants<typename V::value_type>;
  return logistic(z * xsimd::fma(z * z, V(constants::cubic), V(constants::scale)));
}

} // namespace simd_detail

template <> struct vector_form<experts::silu> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept { return z * simd_detail::logistic(z).sigma; }
  template <class V> [[nodiscard]] static V derivative(const V& z) noexcept {
    const auto s = simd_detail::logistic(z);
    return s.sigma * xsimd::fma(z, s.complement, V(1));
  }
};

template <> struct vector_form<experts::gelu> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept { return z * simd_detail::normal(z).below; }
  template <class V> [[nodiscard]] static V derivative(const V& z) noexcept {
    using T = typename V::value_type;
    constexpr T inv_sqrt_2pi = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
    const auto phi = simd_detail::normal(z);
    return xsimd::fma(z * V(inv_sqrt_2pi), phi.exponential, phi.below);
  }
};

template <> struct vector_form<experts::gelu_tanh> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept {
    return z * simd_detail::gelu_tanh_sigma(z).sigma;
  }
  /// s + z·s·(1 − s)·y'(z), s = σ(y(z))
  template <class V> [[nodiscard]] static V derivative(const V& z) noexcept {
    using constants = simd_detail::gelu_tanh_constants<typename V::value_type>;
    const auto s = simd_detail::gelu_tanh_sigma(z);
    const V slope = xsimd::fma(z * z, V(3 * constants::cubic), V(constants::scale));
    return xsimd::fma(z * s.sigma * s.complement, slope, s.sigma); // in this order 0 times a large slope is 0
  }
};

template <> struct vector_form<experts::relu> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept { return xsimd::select(z > V(0), z, V(0)); }
  template <class V> [[nodiscard]] static V derivative(const V& z) noexcept {
    return xsimd::select(z > V(0), V(1), V(0));
  }
};

template <> struct vector_form<experts::squared_relu> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept { return xsimd::select(z > V(0), z * z, V(0)); }
  template <class V> [[nodiscard]] static V derivative(const V& z) noexcept {
    return xsimd::select(z > V(0), z + z, V(0));
  }
};

template <> struct vector_form<experts::linear> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const V& z) noexcept { return z; }
  template <class V> [[nodiscard]] static V derivative(const V&) noexcept { return V(1); }
};

template <activation Activation>
  requires(vector_form<Activation>::available)
struct vector_form<experts::gated<Activation>> {
  static constexpr bool available = true;
  using form = vector_form<Activation>;
  template <class V> [[nodiscard]] static V value(const experts::gated<Activation>&, const V& g, const V& u) noexcept {
    return form::value(g) * u;
  }
  template <class V>
  static void backward(const experts::gated<Activation>&, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    dg = da * u * form::derivative(g);
    du = da * form::value(g);
  }
};

namespace simd_detail {
/// min(z, most) and z clamped to ±most; NaN comes through.
template <class V> [[nodiscard]] V at_most(const V& z, const V& most) noexcept {
  return xsimd::select(z > most, most, z);
}
template <class V> [[nodiscard]] V within(const V& z, const V& most) noexcept {
  return xsimd::select(z > most, most, xsimd::select(z < -most, -most, z));
}
} // namespace simd_detail

template <activation Activation>
  requires(vector_form<Activation>::available)
struct vector_form<experts::clamped<Activation>> {
  static constexpr bool available = true;
  using form = vector_form<Activation>;
  using gate_type = experts::clamped<Activation>;
  template <class V> [[nodiscard]] static V value(const gate_type& gate, const V& g, const V& u) noexcept {
    return form::value(simd_detail::at_most(g, limit<V>(gate))) * simd_detail::within(u, limit<V>(gate));
  }
  template <class V>
  static void backward(const gate_type& gate, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    const V most = limit<V>(gate), inner = simd_detail::at_most(g, most);
    dg = xsimd::select(g > most, V(0), da * simd_detail::within(u, most) * form::derivative(inner));
    du = xsimd::select((u > most) | (u < -most), V(0), da * form::value(inner));
  }

private:
  template <class V> static V limit(const gate_type& gate) noexcept {
    return V(static_cast<typename V::value_type>(gate.limit));
  }
};

template <> struct vector_form<experts::gpt_oss_gate> {
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const experts::gpt_oss_gate& gate, const V& g, const V& u) noexcept {
    const V inner = simd_detail::at_most(g, limit<V>(gate));
    return (simd_detail::within(u, limit<V>(gate)) + V(1)) * (inner * sigma(gate, inner).sigma);
  }
  template <class V>
  static void backward(const experts::gpt_oss_gate& gate, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    const V most = limit<V>(gate), inner = simd_detail::at_most(g, most);
    const auto s = sigma(gate, inner);
    const V slope = s.sigma * xsimd::fma(V(alpha<V>(gate)) * inner, s.complement, V(1));
    dg = xsimd::select(g > most, V(0), da * (simd_detail::within(u, most) + V(1)) * slope);
    du = xsimd::select((u > most) | (u < -most), V(0), da * (inner * s.sigma));
  }

private:
  template <class V> static V limit(const experts::gpt_oss_gate& gate) noexcept {
    return V(static_cast<typename V::value_type>(gate.limit));
  }
  template <class V> static V alpha(const experts::gpt_oss_gate& gate) noexcept {
    return V(static_cast<typename V::value_type>(gate.alpha));
  }
  template <class V> static auto sigma(const experts::gpt_oss_gate& gate, const V& z) noexcept {
    return simd_detail::logistic(alpha<V>(gate) * z);
  }
};

namespace simd_detail {

/// The operations of hmoe/experts/elementwise.hpp with vectors of Arch; functions without a vector_form element by
/// element.
template <class Arch> struct activations {
  template <activation Activation, class T> static void activate(vector_view<const T> z, vector_view<T> a) noexcept {
    if constexpr (vector_form<Activation>::available)
      for_each_vector<xsimd::batch<T, Arch>>(z.size(), [&](const auto& lanes) {
        lanes.store(vector_form<Activation>::value(lanes.load(z.data())), a.data());
      });
    else
      experts::activate<Activation>(z, a);
  }
  template <activation Activation, class T>
  static void activate_backward(vector_view<const T> z, vector_view<T> d) noexcept {
    if constexpr (vector_form<Activation>::available)
      for_each_vector<xsimd::batch<T, Arch>>(z.size(), [&](const auto& lanes) {
        lanes.store(lanes.load(d.data()) * vector_form<Activation>::derivative(lanes.load(z.data())), d.data());
      });
    else
      experts::activate_backward<Activation>(z, d);
  }
  template <gating Gate, class T>
  static void gate(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) noexcept {
    if constexpr (vector_form<Gate>::available)
      for_each_vector<xsimd::batch<T, Arch>>(g.size(), [&](const auto& lanes) {
        lanes.store(vector_form<Gate>::value(gate, lanes.load(g.data()), lanes.load(u.data())), a.data());
      });
    else
      experts::apply_gate(gate, g, u, a);
  }
  template <gating Gate, class T>
  static void gate_backward(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> dg,
                            vector_view<T> du) noexcept {
    using vec = xsimd::batch<T, Arch>;
    if constexpr (vector_form<Gate>::available)
      for_each_vector<vec>(g.size(), [&](const auto& lanes) {
        vec d_gate, d_up;
        vector_form<Gate>::backward(gate, lanes.load(g.data()), lanes.load(u.data()), lanes.load(du.data()), d_gate,
                                    d_up);
        lanes.store(d_gate, dg.data());
        lanes.store(d_up, du.data());
      });
    else
      experts::apply_gate_backward(gate, g, u, dg, du);
  }
};

} // namespace simd_detail
} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
