// SPDX-License-Identifier: MIT
// What workspace_bytes announces is enough for every batch, and hardly more than the batch that needs most takes.
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>

#include "layer/announced_memory.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace hmoe;

namespace {
/// Computes nothing and takes no time, so that batches may be large.
using computes_nothing = hmoe::detail::any_products;

/// Experts that compute all rows themselves, with scratch memory for each row.
struct scratch_bank {
  using value_type = float;
  std::size_t scratch = 0;

  [[nodiscard]] static std::size_t size() { return 4; }
  [[nodiscard]] static std::size_t d_model() { return 64; }
  [[nodiscard]] static std::size_t width(std::size_t) { return 1; }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) { return 0; }
  [[nodiscard]] static double flops_per_row(std::size_t) { return 1; }
  [[nodiscard]] static std::size_t parameter_count(std::size_t) { return 1; }
  [[nodiscard]] static std::size_t bytes(std::size_t) { return 4; }
  template <class Context> void forward_rows(const Context& ctx, vector_view<const expert_rows<float>> rows) const {
    std::size_t total = 0;
    for (const auto& r : rows)
      total += r.count;
    const buffer<float> memory(total * scratch, &ctx.workspace());
  }
  template <class Context> void lay_out_forward_rows(const Context& dry, const row_limits& limits) const {
    const buffer<float> memory(limits.total * scratch, &dry.workspace());
  }
};

template <class Weighting = routing::renormalized, class Experts, class Dispatch>
void check(const Experts& experts, const Dispatch& dispatch, bool padding = false) {
  announced::check<Weighting>(computes_nothing{}, experts, dispatch, padding);
}
/// The widest expert stands at an end, so that the k widest are neighbours.
template <class T> auto unequal_experts(std::size_t d) {
  return expert_set{experts::glu_bank<T, experts::silu>(d, {0, 2, 9, 120, 70}), experts::identity_bank<T>(d, 1),
                    experts::mlp_bank<T, experts::gelu>(d, {30, 5})};
}
} // namespace

TEST_CASE_TEMPLATE("announced memory is enough and at most a quarter too much", T, float, double) {
  for (const std::size_t d : {3U, 64U}) {
    CAPTURE(d);
    const auto experts = unequal_experts<T>(d);
    check(experts, dispatch::sorted{});
    check(experts, dispatch::looped{});
    check(experts, dispatch::scattered{});
    check(experts, dispatch::padded{capacity::busiest{}});
  }
  const expert_set equal{experts::glu_bank<T, experts::silu>(16, std::vector<std::size_t>(9, 40))};
  check(equal, dispatch::sorted{});
  check(equal, dispatch::dense{});
  check(equal, dispatch::per_token{});
  check(equal, dispatch::blocked<>{5});
}

TEST_CASE("announced memory with a capacity, with weights on the input and with padding") {
  const auto experts = unequal_experts<double>(24);
  check(experts, dispatch::sorted{capacity::by_factor{1.5}, capacity::keep_heaviest{}});
  using on_input = routing::on_input_side<routing::renormalized>;
  check<on_input>(experts, dispatch::sorted{});
  check<on_input>(experts, dispatch::dense{});
  check(experts, dispatch::sorted{}, true);
  check(experts, dispatch::dense{}, true);
}

TEST_CASE("banks that compute their rows themselves and those whose rows are gathered take turns with the memory") {
  for (const std::size_t scratch : {10U, 100U, 1000U}) {
    const expert_set experts{scratch_bank{scratch}, experts::identity_bank<float>(64, 4)};
    check(experts, dispatch::scattered{});
    check(experts, dispatch::sorted{});
  }
}
