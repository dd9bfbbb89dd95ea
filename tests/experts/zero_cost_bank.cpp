// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/experts/zero_cost_bank.hpp>

#include <doctest/doctest.h>

#include <cstddef>

using hmoe::experts::identity_bank;
using hmoe::experts::zero_bank;

TEST_CASE_TEMPLATE("experts without weights refuse empty shapes", Bank, zero_bank<float>, identity_bank<float>) {
  CHECK_THROWS_WITH_AS(Bank(0), "hmoe: an expert bank needs d_model >= 1", hmoe::error);
  CHECK_THROWS_WITH_AS(Bank(4, 0), "hmoe: an expert bank needs at least one expert", hmoe::error);
}

TEST_CASE("they cost nothing: no width, no parameter, no memory for backward, no operation") {
  hmoe::experts::zero_cost_bank<double> bank(7, 3);
  CHECK(bank.size() == 3);
  CHECK(bank.d_model() == 7);
  CHECK(hmoe::experts::zero_cost_bank<double>(7).size() == 1);
  for (std::size_t e = 0; e < 3; ++e) {
    CHECK(bank.width(e) + bank.parameter_count(e) + bank.saved_per_row(e) + bank.scratch_per_row(e) == 0);
    CHECK(bank.flops_per_row(e) == 0);
  }
  std::size_t visited = 0;
  bank.visit_parameters([&](const auto&...) { ++visited; });
  CHECK(visited == 0);
}
