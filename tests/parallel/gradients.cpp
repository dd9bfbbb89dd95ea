// SPDX-License-Identifier: MIT
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/parallel/gradients.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/training/gradient_norm.hpp>
#include <hmoe/training/sgd.hpp>

#include "parallel/on_ranks.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {
constexpr std::size_t ranks_training = 3, tokens_each = 16, steps = 3;
constexpr std::size_t tokens_in_all = ranks_training * tokens_each;

/// Some steps on these rows of x with dy = y: weights are trained by SGD with clipped gradients.
template <class Layer, class Norm, class Sum>
std::vector<double> train(Layer& layer, hmoe::matrix_view<const double> x, const Sum& sum, const Norm& clip,
                          std::vector<double>& norms) {
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  std::vector<hmoe::parameter<double>> list;
  layer.append_parameters(gradients, list);
  hmoe::training::sgd<double> optimizer{{}, list};
  hmoe::matrix<double> y(x.rows(), x.cols()), dx(x.rows(), x.cols());
  for (std::size_t step = 0; step < steps; ++step) {
    gradients.set_zero();
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, y, dx, gradients);
    sum(gradients, layer, tape);
    norms.push_back(clip(gradients, list));
    optimizer.step(list, 0.05);
  }
  layer.forward(ctx, x, y);
  return {y.data(), y.data() + y.size()};
}
hmoe::moe_layer<support::unequal_experts<double>, hmoe::routing::top_k_router<double>> whole_layer() {
  hmoe::moe_layer layer{support::make_unequal_experts<double>(),
                        hmoe::routing::top_k_router<double>(support::parallel_d, support::parallel_experts, 2)};
  layer.initialize(hmoe::seed{9}, {.router_stddev = 1});
  return layer;
}
} // namespace

TEST_CASE("ranks with replicas train as one process does, and counts are those of all tokens") {
  support::random_source random(67);
  const auto x = support::random_matrix<double>(random, tokens_in_all, support::parallel_d, 3);
  auto whole = whole_layer();
  hmoe::losses::load_accumulator all_load(support::parallel_experts);
  std::vector<double> norms;
  const auto expected = train(
      whole, x, [&](auto&, const auto& layer, auto& tape) { all_load.add(layer.routing(tape)); },
      [](auto&, const auto& list) { return hmoe::training::clip_gradient_norm(list, 2.0); }, norms);
  CHECK(norms[0] > 2); // something is clipped

  const hmoe::expert_placement placed = support::with_replicas(ranks_training);
  std::vector<std::vector<double>> y(ranks_training), rank_norms(ranks_training), replica(ranks_training);
  std::vector<std::vector<std::uint64_t>> counts(ranks_training);
  hmoe::communicators::threads(ranks_training).run([&](const auto& self) {
    const std::size_t r = self.rank();
    const auto start = whole_layer();
    hmoe::moe_layer layer{start.experts(), start.router(), hmoe::dispatch::expert_parallel{self, placed}};
    hmoe::losses::load_accumulator load(support::parallel_experts);
    y[r] = train(
        layer, x.view().row_block(r * tokens_each, tokens_each),
        [&](auto& gradients, const auto& own, auto& tape) {
          load.add(own.routing(tape), hmoe::training::summed_over(self));
          hmoe::training::sum_gradients(self, placed, gradients);
        },
        [&](auto& gradients, const auto&) { return hmoe::training::clip_gradient_norm(self, placed, gradients, 2.0); },
        rank_norms[r]);
    counts[r].assign(load.counts().begin(), load.counts().end());
    counts[r].push_back(load.tokens());
    layer.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
      if (info.expert == 1 || info.expert == hmoe::parameter_info::no_expert) // expert 1 is on ranks 0 and 2
        replica[r].insert(replica[r].end(), view.data(), view.data() + view.size());
    });
  });
  for (std::size_t r = 0; r < ranks_training; ++r) {
    for (std::size_t i = 0; i < y[r].size(); ++i)
      CHECK(y[r][i] == doctest::Approx(expected[r * tokens_each * support::parallel_d + i]).epsilon(1e-9));
    for (std::size_t step = 0; step < steps; ++step)
      CHECK(rank_norms[r][step] == doctest::Approx(norms[step]).epsilon(1e-11));
    for (std::size_t e = 0; e < support::parallel_experts; ++e)
      CHECK(counts[r][e] == all_load.counts()[e]);
    CHECK(counts[r].back() == steps * tokens_in_all);
  }
  CHECK(support::same_bits(replica[0], replica[2]));
}

TEST_CASE("a norm that is not finite is an error on every rank, and changes nothing") {
  std::vector<std::string> errors(2);
  hmoe::communicators::threads(2).run([&](const auto& self) {
    auto layer = whole_layer();
    auto gradients = layer.make_gradients();
    gradients.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
      view(0, 0) = info.expert == 6 && self.rank() == 1 ? std::numeric_limits<double>::infinity() : 1e3;
    });
    errors[self.rank()] = support::error_of([&] {
      hmoe::training::clip_gradient_norm(self, hmoe::placement::contiguous(support::parallel_experts, 2), gradients,
                                         1.0);
    });
    gradients.router.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
      hmoe::require(view(0, 0) == 1e3, "it was changed");
    });
  });
  CHECK(errors[0] == "hmoe: the gradient norm is inf: training has diverged");
  CHECK(errors[1] == errors[0]);
}
