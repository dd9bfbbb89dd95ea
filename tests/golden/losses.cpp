// SPDX-License-Identifier: MIT
// Losses against what released packages computed: see scripts/golden_losses.
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/z.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

namespace losses = hmoe::losses;
using losses::balance_counts, losses::balance_normalization;
using nlohmann::json;

namespace {
/// The routing of one case of the file, cut into sequences of equal length.
struct golden_case {
  json expected;
  support::routing_batch batch;
  std::vector<hmoe::index_t> offsets;

  golden_case(const json& file, const std::string& name)
      : expected(file.at("cases").at(name)), batch(expected.at("logits").size(), expected.at("logits").at(0).size()) {
    batch.set([&](std::size_t t, std::size_t e) { return expected.at("logits").at(t).at(e).get<double>(); },
              [&](std::size_t t, std::size_t e) {
                const json& ids = expected.at("ids").at(t);
                return std::find(ids.begin(), ids.end(), e) != ids.end();
              });
    const auto sequences = file.at("sequences").get<std::size_t>();
    for (std::size_t s = 0; s <= sequences; ++s)
      offsets.push_back(static_cast<hmoe::index_t>(s * batch.tokens() / sequences));
    batch.trace.set_inputs({.sequence_offsets = offsets});
  }
};

/// Compares the value, and the gradient by the logits: what is in the sinks, taken through the softmax.
template <class Loss> void compare(const std::string& name, const Loss& loss) {
  CAPTURE(name);
  const std::string path = std::string(HMOE_GOLDEN_DIRECTORY) + "/losses.json";
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), "cannot open ", path);
  golden_case golden(json::parse(file), name);
  REQUIRE(golden.batch.tokens() > 0);
  CHECK(golden.batch.evaluate(loss) == doctest::Approx(golden.expected.at("value").get<double>()).epsilon(1e-6));
  const auto& trace = golden.batch.trace;
  for (std::size_t t = 0; t < golden.batch.tokens(); ++t) {
    const auto p = trace.probabilities().row(t), d_p = trace.d_probabilities().row(t);
    double dot = 0;
    for (std::size_t e = 0; e < p.size(); ++e)
      dot += d_p[e] * p[e];
    for (std::size_t e = 0; e < p.size(); ++e) {
      const double slope = trace.d_logits()(t, e) + p[e] * (d_p[e] - dot);
      CHECK(slope ==
            doctest::Approx(golden.expected.at("gradient").at(t).at(e).get<double>()).scale(1e-2).epsilon(1e-5));
    }
  }
}
} // namespace

TEST_CASE("losses have the values and gradients of released packages") {
  const auto all = balance_counts::all_choices, first = balance_counts::first_choice;
  const auto to_k = balance_normalization::to_k, to_one = balance_normalization::to_one;
  compare("transformers_mixtral", losses::load_balance{1, all, to_k});
  compare("transformers_switch", losses::sequence_balance{1, all, to_k, false});
  compare("transformers_switch_z", losses::z{1});
  compare("megatron", losses::load_balance{1, all, to_one});
  compare("megatron_z", losses::z{1});
  compare("deepspeed_top1", losses::load_balance{1, all, to_k});
  compare("deepspeed_top2", losses::load_balance{1, first, to_k});
}
