// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/interop/eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <type_traits>

namespace hmoe::backends {

/// Products by Eigen. The order of sums is Eigen's: the same call gives the same bits, but a token's output may
/// depend in its last bits on the rows it shares a product with. Eigen allocates its own packing buffers for large
/// products, and multiplies with several threads outside of parallel regions unless EIGEN_DONT_PARALLELIZE is
/// defined or Eigen::setNbThreads(1) was called.
struct eigen {
  template <class A, class B, class C>
  static void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() = interop::as_eigen(a) * interop::as_eigen(b).transpose();
  }
  template <class A, class B, class C> static void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() = interop::as_eigen(a) * interop::as_eigen(b);
  }
  template <class A, class B, class C> static void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() += interop::as_eigen(a) * interop::as_eigen(b);
  }
  template <class A, class B, class C>
  static void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0 && a.rows() != 0)
      interop::as_eigen(c).noalias() += interop::as_eigen(a).transpose() * interop::as_eigen(b);
  }

  /// silu and its GLU in Eigen's vectors, whose exponential is as accurate as the C library's and several times as
  /// fast; other functions element by element.
  template <activation Activation, class T> static void activate(vector_view<const T> z, vector_view<T> a) {
    if constexpr (std::same_as<Activation, experts::silu>)
      row(a) = row(z) * sigma(z);
    else
      experts::activate<Activation>(z, a);
  }
  template <activation Activation, class T> static void activate_backward(vector_view<const T> z, vector_view<T> d) {
    if constexpr (std::same_as<Activation, experts::silu>)
      with_silu_slope(z, [&](std::size_t first, std::size_t count, const auto& slope, const auto&) {
        row(d.subview(first, count)) *= slope;
      });
    else
      experts::activate_backward<Activation>(z, d);
  }
  template <gating Gate, class T>
  static void gate(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) {
    if constexpr (std::same_as<Gate, experts::gated<experts::silu>>)
      row(a) = row(g) * sigma(g) * row(u);
    else
      experts::apply_gate(gate, g, u, a);
  }
  template <gating Gate, class T>
  static void gate_backward(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> dg,
                            vector_view<T> du) {
    if constexpr (std::same_as<Gate, experts::gated<experts::silu>>) {
      with_silu_slope(g, [&](std::size_t first, std::size_t count, const auto& slope, const auto& s) {
        const auto d = row(du.subview(first, count));
        row(dg.subview(first, count)) = d * row(u.subview(first, count)) * slope;
        row(du.subview(first, count)) *= row(g.subview(first, count)) * s;
      });
    } else {
      experts::apply_gate_backward(gate, g, u, dg, du);
    }
  }

private:
  template <class T> [[nodiscard]] static auto row(vector_view<T> values) {
    using array = Eigen::Array<std::remove_const_t<T>, Eigen::Dynamic, 1>;
    using map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const array, array>>;
    return map(values.data(), static_cast<Eigen::Index>(values.size()));
  }
  template <class T> [[nodiscard]] static auto sigma(vector_view<const T> z) {
    return (T(1) + (-row(z)).exp()).inverse();
  }
  /// f(first, count, slopes, σ) for short runs of z, where slope = σ(z)(1 + z(1 − σ(z))): no array leaves the stack.
  template <class T, class F> static void with_silu_slope(vector_view<const T> z, const F& f) {
    constexpr std::size_t run = 64;
    using short_array = Eigen::Array<T, Eigen::Dynamic, 1, Eigen::ColMajor, run, 1>;
    for (std::size_t first = 0; first < z.size(); first += run) {
      const vector_view<const T> some = z.subview(first, std::min(run, z.size() - first));
      const short_array s = sigma(some);
      f(first, some.size(), (s * (T(1) + row(some) * (T(1) - s))).eval(), s);
    }
  }
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
