// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/explanation.hpp>

#include "dispatch/strategies.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace hmoe::dispatch;

TEST_CASE("a layer explains a batch, with what automatic would take") {
  const auto layer = support::make_layer<float>(sorted{}, hmoe::routing::top_k_router<float>(10, 6, 2));
  hmoe::assignment<float> assigned;
  assigned.resize_tokens(1);
  assigned.offsets()[1] = 2;
  assigned.resize_entries();
  assigned.experts()[0] = 0;
  assigned.experts()[1] = 4;
  const hmoe::context ctx{hmoe::backends::reference{}};
  const explanation said = layer.explain(ctx, assigned);
  CHECK(said.lines.size() == strategy_count);
  CHECK(said.picked == strategy::per_token);
  for (const char* word : {"weights", "waits", "dense", "automatic picks per_token, by the cost model"})
    CHECK(said.text().find(word) != std::string::npos);
  CHECK(said.text().find("-0.0") == std::string::npos);
  assigned.experts()[1] = 6;
  CHECK(support::error_of([&] { static_cast<void>(layer.explain(ctx, assigned)); }) ==
        "hmoe: the assignment names expert 6, the set has 6");
}
