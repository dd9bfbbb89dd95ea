// SPDX-License-Identifier: MIT
#include <hmoe/testing/activation_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <string>

using hmoe::testing::check_activation;

namespace {
enum class fault { none, wrong_slope, wrong_below, overflows, coarse_float, drifts };

/// z·tanh(z), with one thing wrong.
template <fault Fault> struct soft {
  static inline std::atomic<int> calls = 0;
  template <class T> static T value(T z) {
    if (Fault == fault::overflows)
      return z * (std::exp(z) - std::exp(-z)) / (std::exp(z) + std::exp(-z));
    const T exact = z * std::tanh(z);
    return (Fault == fault::coarse_float && sizeof(T) == 4 ? std::round(exact * 64) / 64 : exact) +
           static_cast<T>(Fault == fault::drifts ? 1e-9 * ++calls : 0);
  }
  template <class T> static T derivative(T z) {
    const T t = std::tanh(z);
    const T slope = t + z * (1 - t * t);
    return Fault == fault::wrong_slope ? slope * T(1.001) : Fault == fault::wrong_below && z < -2 ? -slope : slope;
  }
};
template <fault Fault> std::string laws(const hmoe::testing::activation_options& options = {}) {
  return check_activation<soft<Fault>>(options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound activation keeps the laws") { CHECK(laws<fault::none>() == ""); }

TEST_CASE("each fault of an activation is named") {
  CHECK(names(laws<fault::wrong_slope>(), "derivative is that of value: at -9.975: got "));
  CHECK(names(laws<fault::wrong_below>(), "derivative is that of value: at -9.975: got "));
  CHECK(names(laws<fault::overflows>(), "values and derivatives are finite: at "));
  CHECK(laws<fault::overflows>({.largest = 40}) == "");
  CHECK(names(laws<fault::coarse_float>(), "float and double agree: the value at "));
  CHECK(laws<fault::coarse_float>({.tolerance = 0.02}) == "");
  CHECK(names(laws<fault::drifts>(), "gives the same bits every time"));
}
