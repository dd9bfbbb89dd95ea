// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/testing/gate_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <string>

namespace {
enum class fault { none, wrong_dg, wrong_du, adds, forgets, ignores_da, overflows, coarse_float, drifts, invalid };

/// a = tanh(g) u, with one thing wrong.
struct gate {
  fault has = fault::none;
  static inline std::atomic<int> calls = 0;
  void validate() const { hmoe::require(has != fault::invalid, "out of order"); }
  template <class T> T value(T g, T u) const {
    if (has == fault::overflows)
      return (std::exp(g) - std::exp(-g)) / (std::exp(g) + std::exp(-g)) * u;
    const T exact = std::tanh(g) * u;
    return (has == fault::coarse_float && sizeof(T) == 4 ? std::round(exact * 64) / 64 : exact) +
           static_cast<T>(has == fault::drifts ? 1e-9 * ++calls : 0);
  }
  template <class T> void backward(T g, T u, T da, T& dg, T& du) const {
    const T t = std::tanh(g), factor = has == fault::ignores_da ? T(0.75) : da;
    const T slope = factor * u * (1 - t * t) * (has == fault::wrong_dg ? T(1.01) : T(1));
    if (has == fault::adds)
      dg += slope;
    else if (has != fault::forgets)
      dg = slope;
    du = has == fault::wrong_du ? factor : factor * t;
  }
};
std::string laws(fault has, const hmoe::testing::gate_options& options = {}) {
  return hmoe::testing::check_gate(gate{has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound gate keeps the laws") { CHECK(laws(fault::none) == ""); }

TEST_CASE("each fault of a gate is named") {
  CHECK(names(laws(fault::wrong_dg), "backward is the derivative of value: dg at gate "));
  CHECK(names(laws(fault::wrong_du), "backward is the derivative of value: du at gate "));
  CHECK(names(laws(fault::adds), "writes finite values and derivatives"));
  CHECK(names(laws(fault::forgets), "writes finite values and derivatives"));
  CHECK(names(laws(fault::ignores_da), "dg and du are in proportion to da"));
  CHECK(names(laws(fault::overflows), "writes finite values and derivatives: not at gate -10000"));
  CHECK(laws(fault::overflows, {.largest = 40}) == "");
  CHECK(names(laws(fault::coarse_float), "float and double agree: the value at gate "));
  CHECK(names(laws(fault::drifts), "gives the same bits every time"));
  CHECK(names(laws(fault::invalid), "works without an exception: an exception was thrown: hmoe: out of order"));
}
