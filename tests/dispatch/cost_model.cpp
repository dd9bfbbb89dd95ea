// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/cost_model.hpp>

#include <doctest/doctest.h>

#include <vector>

using namespace hmoe::dispatch;

namespace {
/// One unit of each kind takes a second.
constexpr machine_limits unit{.flops = 1,
                              .first_read = 1,
                              .next_read = 2,
                              .read_by_token = 5,
                              .not_hidden = 0.25,
                              .scattered_read = 1.5,
                              .scattered_row = -0.5,
                              .cache_bytes = 0,
                              .row_copy = 1,
                              .wait_seconds = 1,
                              .task_seconds = 0,
                              .loop_seconds = 10,
                              .plan_seconds = 0,
                              .threads = 2};
dispatch_load load(const std::vector<expert_work>& experts, std::size_t tokens, bool training = false) {
  dispatch_load result{.tokens = tokens,
                       .row_bytes = 1,
                       .phases = 3,
                       .training = training,
                       .experts = hmoe::vector_view<const expert_work>(experts.data(), experts.size())};
  for (const expert_work& e : experts)
    result.entries += e.rows;
  return result;
}
} // namespace

TEST_CASE("the parts of the model against its formulas, by hand") {
  const std::vector<expert_work> experts{{3, 10, 100}, {0, 10, 1000}, {1, 20, 7}};
  const auto at = [&](strategy s, bool training = false) { return predict(s, load(experts, 2, training), unit); };
  CHECK(at(strategy::sorted).weights == 107);
  CHECK(at(strategy::sorted).flops == 20);
  CHECK(at(strategy::sorted).rows == 4 * 4 + 2);
  CHECK(at(strategy::sorted).waits == 3);
  CHECK(at(strategy::sorted).hidden == 0.75 * 20);
  CHECK(at(strategy::sorted).total() == doctest::Approx(107 + 0.25 * 20 + 18 + 3));
  CHECK(at(strategy::per_token).weights == 100 + 2 * 100 / 5.0 + 7);
  CHECK(at(strategy::scattered).weights == 1.5 * 107);
  CHECK(at(strategy::scattered).rows == 4 * 4 + 2 - 4 * 0.5);
  CHECK(at(strategy::scattered, true).rows == 3 * (4 * 4 + 2)); // in training only what copies say
  CHECK(at(strategy::per_token).flops == 0);
  CHECK(at(strategy::per_token).rows == 2 * 4 + 2);
  CHECK(at(strategy::per_token, true).weights == at(strategy::sorted, true).weights);
  CHECK(at(strategy::looped).waits == 2 * 3 + 2 * 3 * 10);
  CHECK(at(strategy::dense).weights == 1107);
  CHECK(at(strategy::dense).waits == 3 * 3 + 3 * 3 * 10);
  CHECK(at(strategy::sorted, true).flops == 60);
  CHECK(at(strategy::sorted, true).weights == 4 * 107);
  machine_limits cached = unit;
  cached.cache_bytes = 107;
  CHECK(predict(strategy::sorted, load(experts, 2), cached).weights == 107 / 2.0);
  dispatch_load packed = load(experts, 2);
  packed.scatter_copies = 2;
  CHECK(predict(strategy::scattered, packed, unit).rows == 2 * 4 + 2 - 4 * 0.5);
  const std::vector<expert_work> long_rows{{130, 10, 100}};
  CHECK(predict(strategy::blocked, load(long_rows, 130), unit).weights == 100 + 2 * 100 / 2.0);
  CHECK(predict(strategy::blocked, load(long_rows, 130), unit).waits == 3 + 2);
}

TEST_CASE("effective experts: all of them with an even load, one where it has all rows, none without rows") {
  const auto of = [](const std::vector<expert_work>& experts) { return effective_experts(load(experts, 1)); };
  CHECK(of({{3}, {3}, {3}}) == 3);
  CHECK(of({{0}, {7}, {0}}) == 1);
  CHECK(of({{3}, {1}, {0}}) == 1.6);
  CHECK(of({{0}, {0}}) == 0);
}

TEST_CASE("few tokens on small experts of their own go token by token, shared experts and batches do not") {
  std::vector<expert_work> one{{1, 6e3, 12e3}, {1, 6e3, 12e3}, {0, 6e3, 12e3}};
  const auto of = [](const std::vector<expert_work>& experts, std::size_t tokens) {
    dispatch_load own = load(experts, tokens);
    own.row_bytes = 3072;
    return own;
  };
  CHECK(quickest(of(one, 1), {}) == strategy::per_token);
  for (expert_work& e : one) // what is saved is below 1 % of the time now
    e.bytes *= 1000;
  CHECK(predict(strategy::per_token, of(one, 1), {}).total() < predict(strategy::sorted, of(one, 1), {}).total());
  CHECK(quickest(of(one, 1), {}) == strategy::sorted);
  const std::vector<expert_work> several{{6, 6e6, 12e6}, {5, 6e6, 12e6}, {5, 6e6, 12e6}};
  CHECK(quickest(of(several, 8), {}) != strategy::per_token);
}
