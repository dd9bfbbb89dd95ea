// SPDX-License-Identifier: MIT
#include <hmoe/core/description.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

TEST_CASE("what a policy chooses or weighs by is in its text") {
  namespace routing = hmoe::routing;
  const auto ends = [](const std::string& text, const std::string& words) {
    CAPTURE(text);
    CHECK(text.ends_with(words));
  };
  const auto of = [](const auto& policy) { return hmoe::descriptions::describe(policy); };
  ends(of(routing::random_hash{.k = 2, .key = {(std::uint64_t{1} << 60U) + 1}}), " k = 2 key = 1152921504606846977");
  ends(of(routing::renormalized{.epsilon = 0.5, .use = routing::epsilon_use::clamped}), " epsilon = 0.5 use = 1");
  ends(of(routing::normalized<>{.use = routing::epsilon_use::clamped}), " order = 1 epsilon = 0 use = 1");
  using linear = routing::linear<float>;
  ends(of(routing::gumbel<linear>(2, 3, 0.25)), " scale = 0.25");
  ends(of(routing::grouped<linear>(linear(2, 5), {2, 3})), " groups of 2 3");
  const std::array<std::size_t, 3> sizes{2, 4, 1};
  ends(of(routing::two_level({sizes.data(), sizes.size()}, 2, 1)),
       " groups of 2 4 1; groups_per_token = 2 experts_per_group = 1");
  const auto table = [&](hmoe::index_t last) { return of(routing::hash_table({0, 1, 2, last}, 2)); };
  CHECK(table(3).find(" k = 2 vocabulary = 2 checksum = ") != std::string::npos);
  CHECK(table(3) == table(3));
  CHECK(table(3) != table(1));
}

TEST_CASE("neighbours of one kind come once in the text of experts, whatever their widths are") {
  namespace kinds = hmoe::experts;
  const auto text = [](const std::vector<std::size_t>& widths) {
    return hmoe::descriptions::describe_experts(hmoe::expert_set{
        hmoe::expert_ids{{{0, 1, 3}, {2}}},
        kinds::glu_bank<float, kinds::clamped<kinds::silu>>(4, widths, kinds::biases::none, {.limit = 7}),
        kinds::mlp_bank<float, kinds::relu>(4, {2}, kinds::biases::all)});
  };
  CHECK(text({1, 2, 3}).ends_with(" d_model = 4 experts = 4; gate limit = 7; 0 to 1: bank 0 gate up down; "
                                  "2: bank 1 up down up_bias down_bias; 3: bank 0 gate up down"));
  CHECK(text({0, 0, 3}) == text({1, 2, 3}));
}
