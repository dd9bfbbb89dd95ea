// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>

#include "cuda/device_array.hpp"
#include "cuda/expert_checks.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

/// Experts with the choices of another router: the tensors of a case on the host and on the device, and what loops in
/// double make of them.
namespace cuda_checks {

struct chosen_case {
  std::size_t tokens, choices, d;
  std::vector<std::size_t> widths;
  bool biased = false;
  std::size_t spare = 0;               ///< values between rows of x, y, dy and dx
  std::optional<std::size_t> unused{}; ///< an expert that no token has
  std::optional<std::int64_t> only{};  ///< the id of all choices
  std::size_t lanes = 2;

  [[nodiscard]] std::size_t hidden() const {
    std::size_t sum = 0;
    for (const std::size_t h : widths)
      sum += h;
    return sum;
  }
};

inline constexpr float gradient_start = 0.5F; ///< gradients are added to what is there

/// Values that S holds exactly.
template <class S> std::vector<S> random_values(support::random_source& random, std::size_t count, double scale) {
  std::vector<S> values(count);
  for (S& value : values)
    value = narrow<S>(static_cast<float>(random.real(-scale, scale)));
  return values;
}

template <class S> struct chosen_tensors {
  std::vector<S> x, dy, in, out; ///< rows of tokens without spare values
  std::vector<float> in_bias, out_bias, weights;
  std::vector<std::int64_t> ids;

  explicit chosen_tensors(const chosen_case& from) {
    support::random_source random(11);
    const std::size_t n = from.tokens * from.d, hidden = from.hidden();
    x = random_values<S>(random, n, 1);
    dy = random_values<S>(random, n, 1);
    in = random_values<S>(random, from.lanes * hidden * from.d, 0.5);
    out = random_values<S>(random, hidden * from.d, 0.5);
    if (from.biased) {
      in_bias = random_values<float>(random, from.lanes * hidden, 0.5);
      out_bias = random_values<float>(random, from.widths.size() * from.d, 0.5);
    }
    weights = random_values<float>(random, from.tokens * from.choices, 1);
    const auto experts = static_cast<std::int64_t>(from.widths.size());
    // Of other ranks: below, above, and one whose low word is that of an expert.
    const std::int64_t others[] = {-1, experts, (std::int64_t{1} << 32) + 1};
    for (std::size_t i = 0; i < from.tokens * from.choices; ++i) {
      auto id = static_cast<std::int64_t>(random.size(0, from.widths.size() - 1));
      if (from.unused && id == static_cast<std::int64_t>(*from.unused))
        id = 0;
      if (random.real(0, 1) < 0.2)
        id = others[i % 3];
      ids.push_back(from.only.value_or(id));
    }
  }
  /// The same experts with one of the tokens.
  [[nodiscard]] chosen_tensors only(const chosen_case& from, std::size_t token) const {
    chosen_tensors one = *this;
    const auto cut = [&](auto& values, std::size_t each) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(token * each);
      values = {begin, begin + static_cast<std::ptrdiff_t>(each)};
    };
    cut(one.x, from.d);
    cut(one.dy, from.d);
    cut(one.ids, from.choices);
    cut(one.weights, from.choices);
    return one;
  }
};

/// What a pass gives; y and dx as rows without spare values.
template <class S> struct chosen_results {
  std::vector<S> y, dx;
  std::vector<float> d_weights, d_in, d_out, d_in_bias, d_out_bias;
};

/// The tensors on the device.
template <class S> class chosen_on_device {
public:
  chosen_on_device(const chosen_case& from, const chosen_tensors<S>& host)
      : tokens_(from.tokens), d_(from.d), stride_(from.d + from.spare), x(spaced(host.x)), dy(spaced(host.dy)),
        y(filled(S(9.0F))), dx(filled(S(9.0F))), in(host.in), out(host.out), in_bias(host.in_bias),
        out_bias(host.out_bias), weights(host.weights), d_weights(std::vector<float>(host.weights.size(), 9)),
        d_in(std::vector<float>(host.in.size(), gradient_start)),
        d_out(std::vector<float>(host.out.size(), gradient_start)),
        d_in_bias(std::vector<float>(host.in_bias.size(), gradient_start)),
        d_out_bias(std::vector<float>(host.out_bias.size(), gradient_start)), ids(host.ids) {}

  [[nodiscard]] std::size_t stride() const { return stride_; }
  [[nodiscard]] chosen_results<S> download() const {
    return {packed(y),        packed(dx),           d_weights.download(), d_in.download(),
            d_out.download(), d_in_bias.download(), d_out_bias.download()};
  }

private:
  std::size_t tokens_, d_, stride_;
  [[nodiscard]] std::vector<S> filled(S value) const { return std::vector<S>(tokens_ * stride_, value); }
  [[nodiscard]] std::vector<S> spaced(const std::vector<S>& rows) const {
    auto all = filled(S(std::numeric_limits<float>::quiet_NaN()));
    for (std::size_t t = 0; t < tokens_; ++t)
      std::copy_n(rows.data() + t * d_, d_, all.data() + t * stride_);
    return all;
  }
  [[nodiscard]] std::vector<S> packed(const device_array<S>& array) const {
    const std::vector<S> all = array.download();
    std::vector<S> rows(tokens_ * d_);
    for (std::size_t t = 0; t < tokens_; ++t) {
      std::copy_n(all.data() + t * stride_, d_, rows.data() + t * d_);
      for (std::size_t c = d_; c < stride_; ++c)
        CHECK(static_cast<float>(all[t * stride_ + c]) == 9);
    }
    return rows;
  }

public:
  device_array<S> x, dy, y, dx, in, out;
  device_array<float> in_bias, out_bias, weights, d_weights, d_in, d_out, d_in_bias, d_out_bias;
  device_array<std::int64_t> ids;
};

/// The same by loops in double. Gate: value and backward of two lanes, or value and derivative of one.
template <class S, class Gate>
chosen_results<float> by_loops(const chosen_case& from, const chosen_tensors<S>& host, const Gate& gate) {
  const std::size_t d = from.d;
  std::vector<double> y(host.x.size()), dx(host.x.size()), d_weights(host.weights.size()), d_in(host.in.size()),
      d_out(host.out.size()), d_in_bias(host.in_bias.size()), d_out_bias(host.out_bias.size());
  const auto value = [](const auto& values, std::size_t i) {
    return static_cast<double>(static_cast<float>(values[i]));
  };
  for (std::size_t t = 0; t < from.tokens; ++t)
    for (std::size_t k = 0; k < from.choices; ++k) {
      const std::int64_t id = host.ids[t * from.choices + k];
      if (id < 0 || id >= static_cast<std::int64_t>(from.widths.size()))
        continue;
      const auto e = static_cast<std::size_t>(id);
      std::size_t before = 0; // hidden values of the experts before
      for (std::size_t i = 0; i < e; ++i)
        before += from.widths[i];
      const std::size_t h = from.widths[e], rows = from.lanes * h, first_row = from.lanes * before;
      const double weight = value(host.weights, t * from.choices + k);
      std::vector<double> z(rows), dz(rows), a(h);
      for (std::size_t r = 0; r < rows; ++r) {
        z[r] = from.biased ? value(host.in_bias, first_row + r) : 0;
        for (std::size_t c = 0; c < d; ++c)
          z[r] += value(host.in, (first_row + r) * d + c) * value(host.x, t * d + c);
      }
      for (std::size_t j = 0; j < h; ++j)
        if constexpr (requires { gate.value(1.0, 1.0); })
          a[j] = gate.value(z[j], z[h + j]);
        else
          a[j] = gate.value(z[j]);
      std::vector<double> da(h);
      for (std::size_t c = 0; c < d; ++c) {
        double o = from.biased ? value(host.out_bias, e * d + c) : 0;
        const double dy = value(host.dy, t * d + c);
        for (std::size_t j = 0; j < h; ++j) {
          const std::size_t at = before * d + c * h + j;
          o += value(host.out, at) * a[j];
          da[j] += value(host.out, at) * weight * dy;
          d_out[at] += weight * dy * a[j];
        }
        y[t * d + c] += weight * o;
        d_weights[t * from.choices + k] += dy * o;
        if (from.biased)
          d_out_bias[e * d + c] += weight * dy;
      }
      for (std::size_t j = 0; j < h; ++j)
        if constexpr (requires { gate.value(1.0, 1.0); })
          gate.backward(z[j], z[h + j], da[j], dz[j], dz[h + j]);
        else
          dz[j] = da[j] * gate.derivative(z[j]);
      for (std::size_t r = 0; r < rows; ++r) {
        if (from.biased)
          d_in_bias[first_row + r] += dz[r];
        for (std::size_t c = 0; c < d; ++c) {
          d_in[(first_row + r) * d + c] += dz[r] * value(host.x, t * d + c);
          dx[t * d + c] += dz[r] * value(host.in, (first_row + r) * d + c);
        }
      }
    }
  const auto rounded = [](const std::vector<double>& values) {
    return std::vector<float>(values.begin(), values.end());
  };
  const auto added = [&](const std::vector<double>& values) {
    std::vector<float> sums = rounded(values);
    for (float& sum : sums)
      sum += gradient_start;
    return sums;
  };
  return {rounded(y), rounded(dx), rounded(d_weights), added(d_in), added(d_out), added(d_in_bias), added(d_out_bias)};
}

template <class S>
void compare(const chosen_case& from, const chosen_results<S>& got, const chosen_results<float>& right) {
  std::size_t widest = 0;
  for (const std::size_t h : from.widths)
    widest = std::max(widest, h);
  const double bound = tolerance<S>(device::float_math::f32, std::max({from.d, 2 * widest, from.tokens}));
  const auto near = [&](const auto& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    return relative_difference(a.data(), vector_view<const float>(b)) < bound;
  };
  CHECK(near(got.y, right.y));
  CHECK(near(got.dx, right.dx));
  CHECK(near(got.d_weights, right.d_weights));
  CHECK(near(got.d_in, right.d_in));
  CHECK(near(got.d_out, right.d_out));
  CHECK(near(got.d_in_bias, right.d_in_bias));
  CHECK(near(got.d_out_bias, right.d_out_bias));
}

template <class T> [[nodiscard]] bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

} // namespace cuda_checks
