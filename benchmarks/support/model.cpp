// SPDX-License-Identifier: MIT
#include "model.hpp"

#include <hmoe/backends/simd.hpp>

#include "machine.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace benchmarks {

namespace {

/// Uniform numbers of the given standard deviation, fast: some layers have a thousand million weights.
void fill(hmoe::matrix_view<float> to, double stddev, std::uint64_t stream) {
  const float range = static_cast<float>(stddev * std::sqrt(12.0));
  for (std::size_t r = 0; r < to.rows(); ++r) {
    std::uint64_t state = stream * 0x9E3779B97F4A7C15U + (r + 1) * 0xD1B54A32D192ED03U;
    for (float& value : to.row(r)) {
      state += 0x9E3779B97F4A7C15U; // splitmix64, short
      const std::uint64_t mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
      value = range * (static_cast<float>(mixed >> 40) * 0x1p-24F - 0.5F);
    }
  }
}

} // namespace

model::model(layer_shape shape, copies wanted, double room) : shape_(std::move(shape)), wanted_(wanted) {
  const double bytes = static_cast<double>(shape_.parameters() * sizeof(float));
  const std::size_t count = cold_copies(bytes);
  const double needed = room * bytes * static_cast<double>(count);
  hmoe::require(needed < static_cast<double>(available_memory()), shape_.name, " needs ", needed * 1e-9,
                " GB of memory, ", static_cast<double>(available_memory()) * 1e-9, " are available");
  layers_.reserve(count);
  layers_.push_back(make_layer());
  std::visit(
      [&](auto& layer) {
        std::uint64_t stream = 0;
        layer.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<float> tensor) {
          fill(tensor, 1 / std::sqrt(static_cast<double>(tensor.cols())), ++stream);
        });
        popularity(layer.router().score().weight());
      },
      layers_[0]);
  while (layers_.size() < count)
    layers_.push_back(layers_[0]);
}

std::size_t model::cold_copies(double bytes) const {
  if (wanted_ == copies::one)
    return 1;
  const double cold = 2 * static_cast<double>(hmoe::last_cache_bytes()) * static_cast<double>(shape_.experts()) /
                      static_cast<double>(shape_.top_k);
  return static_cast<std::size_t>(std::max(1.0, std::ceil(cold / bytes)));
}

const glu_bank& model::bank(std::size_t copy) const {
  return std::visit([](const auto& layer) -> const glu_bank& { return layer.experts().template bank<0>(); },
                    layers_[copy]);
}

const std::vector<batch>& model::batches(std::size_t tokens, routing spread, std::size_t count) {
  auto& list = batches_[{tokens, spread}];
  if (count == 0)
    count = tokens > 256 ? 2 : 4;
  while (list.size() < count)
    list.push_back(make_batch(tokens, spread, list.size() + 1));
  return list;
}

any_layer model::make_layer() const {
  const std::size_t d = shape_.d_model, n = shape_.experts();
  if (shape_.mixed())
    return mixed_layer{hmoe::expert_set{glu_bank{d, shape_.widths}, mlp_bank{d, shape_.mlp_widths},
                                        identity_bank{d, shape_.identities}},
                       hmoe::routing::top_k_router<float>{d, n, shape_.top_k}};
  if (shape_.top_p > 0)
    return top_p_layer{hmoe::expert_set{glu_bank{d, shape_.widths}},
                       hmoe::routing::top_p_router<float>{d, n, shape_.top_p}};
  return top_k_layer{hmoe::expert_set{glu_bank{d, shape_.widths}},
                     hmoe::routing::top_k_router<float>{d, n, shape_.top_k}};
}

/// The first two values of a token turn biases on, the first two columns of the router: the first makes experts
/// popular in proportion to 1, 1/2, 1/3 …, the second sends all tokens to the same top_k. The other columns give
/// logits the spread of a Gumbel variable, with which biases log p make shares of about p.
void model::popularity(hmoe::matrix_view<float> router) const {
  std::vector<std::size_t> rank(shape_.experts());
  for (std::size_t e = 0; e < rank.size(); ++e)
    rank[e] = e;
  std::ranges::shuffle(rank, std::mt19937_64{7}); // popular experts are neither the narrow nor the wide ones
  fill(router, 1.28 / std::sqrt(static_cast<double>(shape_.d_model)), 99);
  for (std::size_t e = 0; e < rank.size(); ++e) {
    router(e, 0) = -std::log(static_cast<float>(rank[e] + 1));
    router(e, 1) = rank[e] < shape_.top_k ? 20.0F : 0.0F;
  }
}

batch model::make_batch(std::size_t tokens, routing spread, std::uint64_t stream) const {
  batch made{.x = hmoe::matrix<float>(tokens, shape_.d_model), .assigned = {}, .plan = {}, .expected = {}};
  fill(made.x, 1, 1000 + stream);
  for (std::size_t t = 0; t < tokens; ++t) {
    made.x(t, 0) = spread == routing::zipf ? 1.0F : 0.0F;
    made.x(t, 1) = spread == routing::collapsed ? 1.0F : 0.0F;
  }
  std::visit(
      [&](const auto& layer) {
        const hmoe::context cpu{hmoe::backends::simd<>{}};
        const hmoe::workspace::scope scope(cpu.workspace());
        hmoe::router_trace<float> trace;
        trace.resize(tokens, shape_.experts(), layer.router().saved_per_token(), false);
        layer.router().forward(cpu, std::as_const(made.x).view(), trace, made.assigned);
        hmoe::dispatch::build_plan(made.assigned, shape_.experts(), made.plan);
        if (stream == 1) {
          made.expected.resize_for_overwrite(tokens, shape_.d_model);
          layer.forward(cpu, std::as_const(made.x).view(), made.expected.view());
        }

        const auto cost = layer.cost();
        made.flops = cost.activated(made.assigned).flops * static_cast<double>(tokens);
        made.weights = static_cast<double>(cost.router_parameters);
        for (std::size_t e = 0; e < shape_.experts(); ++e)
          if (made.plan.rows_of(e) != 0)
            made.weights += static_cast<double>(cost.experts[e].parameters);
      },
      layers_[0]);
  return made;
}

} // namespace benchmarks
