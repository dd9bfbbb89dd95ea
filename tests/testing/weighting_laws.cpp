// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/testing/weighting_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <string>

using hmoe::index_t;
using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
enum class fault { none, negative, forgets, past_the_end, wrong_slope, overwrites, past_the_row, drifts, throws };
using values = vector_view<const double>;
using ids = vector_view<const index_t>;
using sink = vector_view<double>;

/// w = 2p, with one thing wrong.
struct twice {
  fault has = fault::none;
  static inline std::atomic<int> calls = 0;

  void forward(values, values p, ids chosen, sink w) const {
    if (has == fault::throws)
      throw std::runtime_error("out of order");
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (has != fault::forgets || i != 1)
        w[i] = 2 * p[chosen[i]] - (has == fault::negative ? 1 : 0) + (has == fault::drifts ? ++calls : 0);
    if (has == fault::past_the_end)
      w.data()[w.size()] = 0;
  }
  void backward(values, values, ids chosen, values, values dw, sink, sink d_p) const {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (has == fault::overwrites)
        d_p[chosen[i]] = 2 * dw[i];
      else
        d_p[chosen[i]] += (has == fault::wrong_slope ? 1 : 2) * dw[i];
    if (has == fault::past_the_row)
      d_p.data()[d_p.size()] = 0;
  }
};
std::string laws(fault has, const hmoe::testing::weighting_options& options = {}) {
  return hmoe::testing::check_weighting<double>(twice{has}, 5, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("shipped weightings keep the laws") {
  using hmoe::testing::check_weighting;
  CHECK(laws(fault::none) == "");
  CHECK(check_weighting<double>(routing::raw{}, 5).text() == "");
  CHECK(check_weighting<float>(routing::renormalized{}, 5, {.sums_to_one = true}).text() == "");
  CHECK(check_weighting<double>(routing::softmax_over_selected{}, 5, {.sums_to_one = true}).text() == "");
}

TEST_CASE("each fault of a weighting is named") {
  CHECK(names(laws(fault::negative), "weights are not negative"));
  CHECK(laws(fault::negative, {.non_negative = false}) == "");
  CHECK(names(laws(fault::none, {.sums_to_one = true}), "the weights of a token add up to 1"));
  CHECK(names(laws(fault::forgets), "forward writes every weight"));
  CHECK(names(laws(fault::past_the_end), "forward writes only the weights of the chosen experts"));
  CHECK(names(laws(fault::wrong_slope), "backward is the derivative of forward"));
  CHECK(names(laws(fault::overwrites), "backward adds to its sinks"));
  CHECK(names(laws(fault::past_the_row), "backward writes only within the row"));
  CHECK(names(laws(fault::drifts), "gives the same bits every time"));
  CHECK(names(laws(fault::throws), "works without an exception: an exception was thrown: out of order"));
}
