// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/testing/loss_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>

using hmoe::testing::check_loss;
namespace losses = hmoe::losses;

namespace {
enum class fault {
  none,
  wrong_sign,
  no_coefficient,
  overwrites,
  changes_p,
  divides_by_zero,
  past_the_sinks,
  lopsided,
  drifts,
  infinite,
  throws
};

/// Σ_t Σ_e p², with one thing wrong.
struct squares {
  fault has = fault::none;
  double coefficient = 0.5;
  static constexpr std::string_view name = "squares";
  static inline std::atomic<int> calls = 0;

  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    if (has == fault::throws)
      throw std::runtime_error("out of order");
    auto& trace = batch.trace;
    const auto p = trace.probabilities();
    double sum = has == fault::drifts ? ++calls : 0;
    for (std::size_t t = 0; t < p.rows(); ++t)
      for (std::size_t e = 0; e < p.cols(); ++e) {
        const double factor = has == fault::lopsided ? static_cast<double>(e) : 1;
        sum += factor * double{p(t, e)} * double{p(t, e)};
        const double slope = 2 * factor * double{p(t, e)} * (has == fault::no_coefficient ? 1 : coefficient) *
                             (has == fault::wrong_sign ? -1 : 1);
        if (has == fault::overwrites)
          trace.d_probabilities()(t, e) = static_cast<T>(slope);
        else
          trace.d_probabilities()(t, e) += static_cast<T>(slope);
      }
    if (has == fault::changes_p && p.rows() != 0)
      p(0, 0) = 0;
    if (has == fault::past_the_sinks)
      trace.d_probabilities().data()[p.size()] = 0;
    if (has == fault::infinite)
      sum = std::numeric_limits<double>::infinity();
    return has == fault::divides_by_zero ? sum / static_cast<double>(p.rows()) * static_cast<double>(p.rows()) : sum;
  }
};
/// Forgets what the learned spreads have to do with it.
struct spreadless : losses::noisy_load {
  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    const double value = losses::noisy_load::evaluate(batch);
    const auto sink = batch.trace.d_score_saved();
    std::fill_n(sink.data(), sink.size(), T(0));
    return value;
  }
};
/// As docs/losses.md asks for it: without a look at whether there are sinks.
struct mean_square {
  double coefficient = 1;
  static constexpr std::string_view name = "mean_square";

  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    const auto p = batch.trace.probabilities(), dp = batch.trace.d_probabilities();
    if (p.rows() == 0)
      return 0;
    const double scale = 1 / static_cast<double>(p.rows());
    double sum = 0;
    for (std::size_t t = 0; t < p.rows(); ++t)
      for (std::size_t i = 0; i < p.cols(); ++i) {
        sum += scale * double{p(t, i)} * double{p(t, i)};
        dp(t, i) += static_cast<T>(coefficient * 2 * scale * double{p(t, i)});
      }
    return sum;
  }
};
std::string laws(fault has, const hmoe::testing::loss_options& options = {}) {
  return check_loss(squares{has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("shipped losses keep the laws") {
  CHECK(laws(fault::none) == "");
  CHECK(check_loss(mean_square{}).text() == "");
  CHECK(check_loss(losses::load_balance{}).text() == "");
  CHECK(check_loss(losses::parameter_penalty{}).text() == "");
  CHECK(check_loss(losses::router_entropy{}).text() == "");
  CHECK(check_loss<float>(losses::z{}).text() == "");
}

TEST_CASE("each fault of a loss is named") {
  CHECK(names(laws(fault::wrong_sign), "the gradient is coefficient times the derivative: with some experts for each "
                                       "token it differs from finite differences of d_probabilities at ["));
  CHECK(names(laws(fault::wrong_sign), "]: got -0."));
  CHECK(names(laws(fault::no_coefficient), "the gradient is coefficient times the derivative"));
  CHECK(names(laws(fault::overwrites), "adds to the sinks"));
  CHECK(names(laws(fault::changes_p), "leaves logits and probabilities alone"));
  CHECK(names(laws(fault::divides_by_zero), "no tokens are a legal batch: the value is"));
  CHECK(names(laws(fault::past_the_sinks), "writes only into the sinks: memory beside the trace changed"));
  CHECK(names(laws(fault::lopsided), "treats experts alike"));
  CHECK(laws(fault::lopsided, {.treats_experts_alike = false}) == "");
  CHECK(names(laws(fault::drifts), "gives the same value every time"));
  CHECK(names(laws(fault::drifts), "gives the same bits every time"));
  CHECK(names(laws(fault::infinite), "value and gradient are finite"));
  CHECK(names(laws(fault::throws), "works without an exception: an exception was thrown: out of order"));
}

TEST_CASE("losses that read learned noise need a batch that has it") {
  CHECK(check_loss(losses::noisy_load{}, {.learned_noise = true}).text() == "");
  CHECK(names(check_loss(losses::noisy_load{}).text(), "noisy_load needs a batch that was routed with noise"));
  CHECK(names(check_loss(spreadless{}, {.learned_noise = true}).text(),
              "the gradient is coefficient times the derivative"));
}
