// SPDX-License-Identifier: MIT
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/failure.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/failing_passes.hpp"

#include <doctest/doctest.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {
using failing_rank = hmoe::communicators::threads::member;
} // namespace

TEST_CASE("an exception of one rank is an error on all, its own type on its own rank") {
  std::vector<std::string> texts(3);
  hmoe::communicators::threads(3).run([&](const failing_rank& self) {
    hmoe::communicators::agree(self, nullptr, "somebody");
    const std::exception_ptr own =
        self.rank() == 1 ? std::make_exception_ptr(std::range_error(std::string(1000, 'x'))) : nullptr;
    try {
      hmoe::communicators::agree(self, own, "somebody");
    } catch (const std::range_error&) {
      texts[self.rank()] = "out of range";
    } catch (const hmoe::error& e) {
      texts[self.rank()] = e.what();
    }
  });
  CHECK(texts[1] == "out of range");
  CHECK(texts[0] == "hmoe: somebody: rank 1 has failed: " + std::string(479, 'x')); // as much as is sent
  CHECK(texts[2] == texts[0]);
  CHECK_THROWS_AS(hmoe::communicators::agree(hmoe::communicators::single{},
                                             std::make_exception_ptr(std::range_error("alone")), "somebody"),
                  std::range_error);
}

TEST_CASE("what goes wrong in a pass on one rank is an error on all, and all go on") {
  const auto check = [](std::size_t ranks, const auto& make, std::string_view who = "expert_parallel") {
    std::vector<std::vector<std::string>> faults(ranks);
    hmoe::communicators::threads(ranks).run([&](const failing_rank& self) {
      faults[self.rank()] = support::faults_of_failing_passes(self, make, 40, who);
    });
    for (const auto& of_rank : faults)
      for (const std::string& fault : of_rank)
        FAIL_CHECK(fault);
  };
  const auto chunks = [](std::size_t count) {
    return [count](const failing_rank& self, const hmoe::expert_placement& placed) {
      return hmoe::dispatch::expert_parallel{self, placed, hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{count}};
    };
  };
  check(2, chunks(1));
  check(3, chunks(3));
  check(
      3,
      [](const failing_rank& self, const hmoe::expert_placement& placed) {
        return hmoe::dispatch::expert_parallel_summed{self, placed, hmoe::dispatch::sorted<>{},
                                                      hmoe::dispatch::overlap{2}};
      },
      "expert_parallel_summed");
}

TEST_CASE("ranks at different passes are told so") {
  std::vector<std::string> texts(2);
  hmoe::communicators::threads(2).run([&](const failing_rank& self) {
    hmoe::moe_layer layer{hmoe::expert_set{support::fragile_expert{}, support::fragile_expert{}},
                          hmoe::routing::top_k_router<double>(4, 2, 1),
                          hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(2, 2)}};
    const hmoe::context ctx{hmoe::backends::reference{}};
    hmoe::matrix<double> x(3, 4), y(3, 4);
    auto tape = layer.make_tape(3);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y, tape);
    texts[self.rank()] = support::error_of([&] {
      if (self.rank() == 0)
        layer.forward(ctx, x, y);
      else
        layer.backward(ctx, tape, x, y, gradients);
    });
  });
  CHECK(texts[0] == "hmoe: expert_parallel: rank 1 runs a backward pass, rank 0 runs a forward pass");
  CHECK(texts[1] == "hmoe: expert_parallel: rank 0 runs a forward pass, rank 1 runs a backward pass");
}
