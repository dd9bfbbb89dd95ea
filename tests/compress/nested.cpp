// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/nested.hpp>
#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/order_neurons.hpp>
#include <hmoe/compress/prune_neurons.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/allocation_count.hpp"
#include "support/allocations.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;
using support::same_bits;
using list = std::vector<std::size_t>;

TEST_CASE("a layer at nested widths is the layer cut to them, forward and in training, and allocates nothing") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto importance = compress::heapr(layer, run.sums);
  auto by_importance = compress::order_by_importance(layer, importance);
  const auto& x = run.x[2];
  const auto& dy = run.dy[2];
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  auto tape = by_importance.layer.make_tape(x.rows());
  auto gradients = by_importance.layer.make_gradients();
  for (const double share : {1.0, 0.6, 0.3, 0.0}) {
    CAPTURE(share);
    const compress::neuron_budget budget{.share = share};
    const list widths = compress::widths_within(by_importance.layer, by_importance.importance, run.sums, budget);
    const compress::nested part{by_importance.layer, widths};
    // The neurons are those that pruning keeps, in another order.
    const auto pruned = compress::prune_neurons(layer, importance, run.sums, budget);
    CHECK(pruned.report.widths == list(part.widths().begin(), part.widths().end()));
    matrix<double> y(x.rows(), d), dx(x.rows(), d), of_pruned(x.rows(), d);
    pruned.layer.forward(cpu, x, of_pruned);

    const auto cut = part.cut();
    CHECK(cut.experts().bank<0>().gate(0).data() != by_importance.layer.experts().bank<0>().gate(0).data());
    CHECK(part.experts().bank<0>().gate(0).data() == by_importance.layer.experts().bank<0>().gate(0).data());
    support::step expected(cut, x, dy);
    CHECK(support::largest_difference(expected.y.view(), of_pruned.view()) < 1e-13);
    memory.reserve(part.workspace_bytes(ctx, x.rows()));
    gradients.set_zero();
    auto part_of_gradients = part.part_of(gradients);
    CHECK(support::allocations_in([&] {
            part.forward(ctx, x, y);
            part.forward(ctx, x, y, tape);
            part.backward(ctx, tape, dy, dx, part_of_gradients);
          }) == 0);
    CHECK(same_bits(y, expected.y));
    CHECK(support::largest_difference(dx.view(), expected.dx.view()) < 1e-14);
    // The gradients of the first neurons have the bits of those of the layer that was cut, others stay 0.
    std::vector<double> part_gradients;
    double outside = 0;
    gradients.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
      const std::size_t h = info.expert == info.no_expert ? 0 : widths[info.expert];
      const bool of_rows = info.name == "gate" || info.name == "up";
      const bool of_columns = info.name == "down" || info.name == "gate_bias" || info.name == "up_bias";
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (std::size_t c = 0; c < view.cols(); ++c)
          if ((of_rows && r >= h) || (of_columns && c >= h))
            outside += std::abs(view(r, c));
          else
            part_gradients.push_back(view(r, c));
    });
    CHECK(outside == 0);
    CHECK(same_bits(part_gradients, expected.all_gradients()));
    // Losses see the widths that run.
    const hmoe::objective aux{hmoe::losses::parameter_penalty{0.1}};
    auto cut_tape = cut.make_tape(x.rows());
    cut.forward(cpu, x, y, cut_tape);
    part.forward(ctx, x, y, tape);
    if (share != 0)
      CHECK(aux.evaluate(part, tape).total() == aux.evaluate(cut, cut_tape).total());
  }
}

TEST_CASE("widths that do not fit are refused") {
  const auto layer = support::make_calibrated_layer();
  CHECK(support::error_of([&] { (void)compress::nested(layer, {1, 2}); }) == "hmoe: 2 widths for a layer of 5 experts");
  CHECK(support::error_of([&] { (void)compress::nested(layer, {1, 5, 1, 1, 1}); }) ==
        "hmoe: expert 1 shall run at width 5, it has 4");
}

TEST_CASE("nested widths with kernels for whole banks: the bits of the layer that is cut, which they pack") {
  using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  constexpr std::size_t d_model = 256;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d_model, {300, 260}, hmoe::experts::biases::all)},
                        hmoe::routing::top_k_router<float>(d_model, 2, 2), hmoe::dispatch::scattered{}};
  layer.initialize(hmoe::seed{5});
  const hmoe::context ctx{hmoe::backends::simd{}};
  support::random_source random(15);
  const auto x = support::random_matrix<float>(random, 5, d_model),
             dy = support::random_matrix<float>(random, 5, d_model);
  const compress::nested part{layer, {200, 131}};
  const auto cut = part.cut();
  matrix<float> y(5, d_model), expected(5, d_model), dx(5, d_model), expected_dx(5, d_model);
  auto tape = layer.make_tape(5), cut_tape = cut.make_tape(5);
  auto gradients = layer.make_gradients();
  auto cut_gradients = cut.make_gradients();
  auto part_of_gradients = part.part_of(gradients);
  part.forward(ctx, x, y, tape);
  part.backward(ctx, tape, dy, dx, part_of_gradients);
  cut.forward(ctx, x, expected, cut_tape);
  cut.backward(ctx, cut_tape, dy, expected_dx, cut_gradients);
  CHECK(same_bits(y, expected));
  CHECK(same_bits(dx, expected_dx));
  CHECK(part.experts().runner_of(ctx, 0) == hmoe::experts::runner::backend);
  std::vector<hmoe::matrix_view<float>> all;
  gradients.visit_parameters([&](const hmoe::parameter_info&, auto view) { all.push_back(view); });
  std::size_t next = 0;
  cut_gradients.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> view) {
    CAPTURE(info.name);
    const auto first = all[next++].row_block(0, view.rows()).column_block(0, view.cols());
    CHECK(support::largest_difference(first, view) == 0);
  });
}
