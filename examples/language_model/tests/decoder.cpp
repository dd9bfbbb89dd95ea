// SPDX-License-Identifier: MIT
#include "decoder.hpp"

#include <hmoe/core/error.hpp>

#include "feed_forwards.hpp"
#include "generation.hpp"
#include "variant.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace language_model {
namespace {

constexpr model_shape small{.d_model = 12, .blocks = 2, .heads = 3, .context = 70, .vocabulary = 19};

decoder<double> make_model(std::size_t sequences) {
  const variant v = parse_variant("experts=4,total=40");
  return {small, make_feed_forwards<double>(v, small, sequences, 2), sequences, 2};
}

std::vector<token> some_tokens(std::size_t count) {
  std::vector<token> tokens;
  tokens.reserve(count);
  for (std::size_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<token>((i * i + 3 * i) % small.vocabulary));
  return tokens;
}

TEST_CASE("a token changes nothing before it, and nothing in another sequence") {
  auto model = make_model(2);
  model.initialize(hmoe::seed{5});
  auto inputs = some_tokens(140);
  const auto targets = some_tokens(140);
  model.evaluate(inputs, targets);
  const std::vector<double> before(model.token_losses().begin(), model.token_losses().end());
  inputs[40] = static_cast<token>((inputs[40] + 1) % small.vocabulary);
  model.evaluate(inputs, targets);
  const auto after = model.token_losses();
  for (std::size_t t = 0; t < inputs.size(); ++t) {
    CAPTURE(t);
    const double difference = std::abs(after[t] - before[t]);
    if (t < 40 || t >= 70)
      CHECK(difference < 1e-12);
    else
      CHECK(difference > 1e-12);
  }
}

TEST_CASE("the initial loss is that of a uniform guess") {
  auto model = make_model(2);
  model.initialize(hmoe::seed{1});
  CHECK(model.evaluate(some_tokens(140), some_tokens(140)) == doctest::Approx(std::log(19.0)).epsilon(0.02));
}

TEST_CASE("rotary positions: scores depend on the distance of two tokens only, and rotate_back undoes rotate") {
  const rotary_embedding<double> rotary(16, 6);
  matrix<double> x(16, 12);
  for (Eigen::Index i = 0; i < x.rows(); ++i) {
    for (Eigen::Index j = 0; j < 6; ++j) {
      x(i, j) = 0.3 + static_cast<double>(j);           // the same query at each position
      x(i, j + 6) = 1.0 - 0.2 * static_cast<double>(j); // the same key
    }
  }
  const matrix<double> original = x;
  rotary.rotate(x);
  const auto score = [&](Eigen::Index q, Eigen::Index k) { return x.row(q).head(6).dot(x.row(k).tail(6)); };
  CHECK(score(9, 4) == doctest::Approx(score(15, 10)));
  CHECK(score(5, 4) == doctest::Approx(score(1, 0)));
  CHECK(score(9, 4) != doctest::Approx(score(9, 5)));
  rotary.rotate_back(x);
  CHECK((x - original).cwiseAbs().maxCoeff() < 1e-12);
}

TEST_CASE("cross entropy: value and gradient of a row worked out by hand") {
  matrix<double> logits(1, 3);
  logits << 0.0, std::log(2.0), std::log(5.0);
  const std::vector<token> target{1};
  std::vector<double> loss(1);
  cross_entropy<double>(logits, target, 0.0, loss);
  CHECK(loss[0] == doctest::Approx(std::log(4.0)));
  CHECK(logits(0, 0) == 0.0);
  cross_entropy<double>(logits, target, 2.0, loss);
  CHECK(logits(0, 0) == doctest::Approx(2.0 * 0.125));
  CHECK(logits(0, 1) == doctest::Approx(2.0 * (0.25 - 1.0)));
  CHECK(logits(0, 2) == doctest::Approx(2.0 * 0.625));
}

TEST_CASE("inputs that do not fit are refused with their numbers") {
  auto model = make_model(2);
  CHECK_THROWS_WITH_AS(model.evaluate(some_tokens(139), some_tokens(140)), doctest::Contains("139 tokens"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(model.evaluate(some_tokens(140), some_tokens(3)), doctest::Contains("3 targets"), hmoe::error);
  auto inputs = some_tokens(140);
  inputs[7] = 19;
  CHECK_THROWS_WITH_AS(model.evaluate(inputs, some_tokens(140)), doctest::Contains("vocabulary of 19"), hmoe::error);
  model_shape odd = small;
  odd.heads = 4;
  CHECK_THROWS_WITH_AS(validate(odd), doctest::Contains("d_model 12"), hmoe::error);
}

TEST_CASE("sampling: temperature 0 takes the largest logit, otherwise shares follow the softmax") {
  const std::vector<float> logits{0.0F, std::log(3.0F)};
  CHECK(sample_index(logits, 0.0, 0.01) == 1);
  CHECK(sample_index(logits, 1.0, 0.24) == 0);
  CHECK(sample_index(logits, 1.0, 0.26) == 1);
  CHECK(sample_index(logits, 1.0, 1.0) == 1);
}

} // namespace
} // namespace language_model
