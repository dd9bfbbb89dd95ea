// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/any_packed_bank.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace hmoe;

namespace {
/// Keeps the experts that events name.
struct expert_probe {
  std::set<std::size_t>* seen;

  void begin(const probes::event& e) const noexcept {
    if (e.expert != probes::no_expert)
      seen->insert(e.expert);
  }
  void end(const probes::event&) const noexcept {}
};
template <class Layer> std::string saved(const Layer& layer) {
  const support::scratch_folder folder;
  io::packed_checkpoint_writer writer;
  writer.add(layer);
  writer.write((folder / "f").string());
  return support::contents_of(folder / "f");
}
} // namespace

TEST_CASE("the same bits, sizes, file and events as the bank that it holds, at a width of 0 and under other ids") {
  constexpr std::size_t d = 24;
  using bank_type = experts::glu_bank<float, experts::gelu>;
  const auto packed_set = [&](const auto& wrap) {
    bank_type bank(d, {20, 0, 9}, experts::biases::all), other(d, {7});
    support::random_source random(3);
    const auto fill = [&](const parameter_info&, matrix_view<float> view) { support::fill(random, view, 0.4F); };
    bank.visit_parameters(fill);
    other.visit_parameters(fill);
    using simd = backends::simd<>;
    return expert_set{expert_ids{{{0, 2, 3}, {1}}}, wrap(simd::pack(bank)), wrap(simd::pack(other))};
  };
  std::set<std::size_t> seen;
  const context ctx{backends::simd{}, executors::serial{}, expert_probe{&seen}};
  using context_type = std::remove_const_t<decltype(ctx)>;
  using router_type = routing::top_k_router<float>;
  router_type router(d, 4, 2);
  router.initialize(seed{1}, 0, {});
  const moe_layer typed{packed_set([](auto bank) { return bank; }), router, dispatch::scattered{}};
  const moe_layer any{packed_set([](auto bank) { return io::any_packed_bank<context_type>(std::move(bank)); }), router,
                      dispatch::scattered{}};

  support::random_source random(4);
  const auto x = support::random_matrix<float>(random, 40, d);
  matrix<float> expected(40, d), y(40, d);
  typed.forward(ctx, x, expected);
  const std::set<std::size_t> experts = std::exchange(seen, {});
  any.forward(ctx, x, y);
  CHECK(std::equal(y.data(), y.data() + y.size(), expected.data()));
  CHECK(seen == experts);
  CHECK(seen == std::set<std::size_t>{0, 1, 2, 3});
  CHECK(any.workspace_bytes(ctx, 40) == typed.workspace_bytes(ctx, 40));
  for (std::size_t e = 0; e < 4; ++e) {
    CHECK(any.experts().width(e) == typed.experts().width(e));
    CHECK(any.experts().bytes(e) == typed.experts().bytes(e));
    CHECK(any.experts().parameter_count(e) == typed.experts().parameter_count(e));
    CHECK(any.experts().flops_per_row(e) == typed.experts().flops_per_row(e));
  }
  CHECK(any.experts().bank<0>().kind() == "glu.gelu");
  CHECK(saved(any) == saved(typed));
}
