// SPDX-License-Identifier: MIT
#include "decoder.hpp"
#include "feed_forwards.hpp"
#include "variant.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace language_model {
namespace {

constexpr model_shape tiny{.d_model = 8, .blocks = 2, .heads = 2, .context = 5, .vocabulary = 11};
constexpr std::size_t sequences = 3;

std::vector<token> random_tokens(std::uint64_t stream) {
  std::vector<token> tokens;
  tokens.reserve(sequences * tiny.context);
  for (std::size_t i = 0; i < sequences * tiny.context; ++i) {
    tokens.push_back(static_cast<token>(hmoe::uniform(hmoe::seed{3}, stream, i) * tiny.vocabulary));
  }
  return tokens;
}

/// Central differences of fourth order against the gradients by hand, for every value of every tensor. Errors are
/// relative to the largest gradient of the tensor.
void check_gradients(const std::string& description) {
  const variant v = parse_variant(description);
  decoder<double> model(tiny, make_feed_forwards<double>(v, tiny, sequences, 1), sequences, 1);
  auto parameters = model.parameters();
  // Larger weights than those of training: routing far from ties, and every path matters.
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    hmoe::fill_normal(hmoe::vector_view<double>(parameters[p].value), 0.6, hmoe::seed{11}, p);
  }
  const auto inputs = random_tokens(0);
  const auto targets = random_tokens(1);
  const auto loss = [&] {
    const auto losses = model.accumulate_gradients(inputs, targets, hmoe::noise_source{hmoe::seed{5}, 2});
    return losses.task + losses.auxiliary;
  };
  for (auto& p : parameters)
    std::ranges::fill(p.gradient, 0.0);
  loss();
  std::vector<std::vector<double>> gradients;
  for (auto& p : parameters)
    gradients.emplace_back(p.gradient.begin(), p.gradient.end());

  constexpr double h = 1e-4;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    CAPTURE(parameters[p].name);
    double largest = 0.0;
    double error = 0.0;
    for (std::size_t i = 0; i < parameters[p].value.size(); ++i) {
      double& x = parameters[p].value[i];
      const double at = x;
      const auto loss_at = [&](double offset) {
        x = at + offset;
        return loss();
      };
      const double near = loss_at(h) - loss_at(-h);
      const double far = loss_at(2 * h) - loss_at(-2 * h);
      x = at;
      largest = std::max(largest, std::abs(gradients[p][i]));
      error = std::max(error, std::abs((8 * near - far) / (12 * h) - gradients[p][i]));
    }
    CHECK(largest > 1e-6); // a tensor without gradient would be checked against nothing
    CHECK(error <= 1e-6 * largest);
  }
}

TEST_CASE("gradients of the whole model agree with finite differences, top-k and all auxiliary losses") {
  check_gradients("sizes=list:3/5/2/7,router=top-k:2,loss=load-balance:0.3,loss=parameter-penalty:0.2,"
                  "loss=router-entropy:0.1,loss=z:0.05");
}

TEST_CASE("gradients of the whole model agree with finite differences, top-p") {
  check_gradients("sizes=list:3/5/2/7,router=top-p:0.7,loss=parameter-penalty:0.2,loss=router-entropy:0.1");
}

TEST_CASE("gradients of the whole model agree with finite differences, noise and its load") {
  check_gradients("sizes=list:3/5/2/7,router=noisy-top-k:2,loss=noisy-load:0.2,loss=importance:0.1");
}

TEST_CASE("gradients of the whole model agree with finite differences, previous layer and windows") {
  check_gradients("sizes=list:3/5/2/7,router=gate-residual:2,loss=sequence-balance:0.3,loss=compute-cost:0.2");
}

TEST_CASE("gradients of the whole model agree with finite differences, scores of groups") {
  check_gradients("sizes=list:3/5/2/7,router=mohge:3:2:1,loss=compute-cost:0.2");
}

TEST_CASE("gradients of the whole model agree with finite differences, ReLU scores") {
  check_gradients("sizes=list:3/5/2/7,router=relu:2,loss=adaptive-l1:0.1");
}

TEST_CASE("gradients of the whole model agree with finite differences, gated shared experts and options of losses") {
  check_gradients("sizes=list:3/5/2/7,shared=sigmoid-gated:4/1,router=top-k:2,loss=load-balance:0.3:to-one,"
                  "loss=parameter-penalty:0.1:raw,loss=importance:0.1:selected");
}

TEST_CASE("gradients of the whole model agree with finite differences, a shared expert that is always on") {
  check_gradients("sizes=list:3/5/2/7,shared=always-on:4,router=top-k:2,loss=parameter-penalty:0.2:max");
}

TEST_CASE("gradients of the whole model agree with finite differences, scaled sigmoid scores") {
  check_gradients("sizes=list:3/5/2/7,router=sigmoid-top-k:2:2.5,loss=group-balance:0.1");
}

} // namespace
} // namespace language_model
