// SPDX-License-Identifier: MIT
// Prunes a layer of equal experts: importance from calibration tokens, neurons cut over all experts together and expert
// by expert, experts replaced by constants, a layer that runs at several widths, and a file of the result.

#include <hmoe/compress.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <utility>
#include <vector>

using namespace hmoe;

namespace {
constexpr std::size_t d_model = 32, experts_count = 8, width = 48, tokens = 512;
using bank = experts::glu_bank<float, experts::silu>;
using router = routing::top_k_router<float>;
using pruned_layer = moe_layer<expert_set<bank>, router>;

matrix<float> random_tokens(std::uint64_t stream) {
  matrix<float> x(tokens, d_model);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{7}, stream);
  return x;
}

/// Neurons and experts that matter differently, as those of trained models do.
pruned_layer make_layer() {
  pruned_layer layer{expert_set{bank(d_model, std::vector<std::size_t>(experts_count, width))},
                     router(d_model, experts_count, 2)};
  layer.initialize(seed{1});
  std::uint64_t stream = 0;
  for (std::size_t e = 0; e < experts_count; ++e) {
    const double of_expert = normal(seed{2}, 0, e);
    for (std::size_t i = 0; i < width; ++i) {
      const auto scale = static_cast<float>(std::exp(of_expert / 2 + normal(seed{2}, 1, stream++)));
      for (std::size_t k = 0; k < d_model; ++k)
        layer.experts().bank<0>().down(e)(k, i) *= scale;
    }
  }
  return layer;
}

void print(const char* what, const compress::report& report, const compress::output_change& change) {
  std::printf("%-28s %8zu parameters %7.1f kFLOP per token   change of the output %.3f\n", what, report.parameters,
              report.flops / 1e3, change.relative());
}
} // namespace

int main() {
  const pruned_layer layer = make_layer();
  const context ctx{backends::reference{}};
  const matrix<float> x = random_tokens(0), held_out = random_tokens(1);

  // Importance. The gradients are those of −log p for outputs drawn from a normal distribution around y: the Fisher
  // matrix of a squared error. In a model they are the ∂L/∂y of its loss.
  compress::calibration sums{layer};
  auto tape = layer.make_tape(tokens);
  matrix<float> y(tokens, d_model);
  layer.forward(ctx, x, y, tape);
  sums.add(layer, tape);
  sums.add_gradient(ctx, layer, tape, random_tokens(2));
  const compress::neuron_values importance = compress::heapr(layer, sums);
  const auto by_importance = compress::order_by_importance(layer, importance);

  double unequal = 0, equal = 0;
  for (const double share : {0.75, 0.5, 0.25}) {
    auto cut = compress::prune_neurons(layer, importance, sums, {.share = share});
    unequal = cut.measure(ctx, layer, held_out).relative();
    std::cout << "\nkeeping " << share << " of the neurons; widths over all experts:";
    for (const std::size_t h : cut.report.widths)
      std::cout << ' ' << h;
    std::cout << '\n';
    print("ranked over all experts", cut.report, *cut.report.measured);
    // The same layer at equal widths: views of the ordered one.
    const auto each = static_cast<std::size_t>(share * width);
    const compress::nested uniform{by_importance.layer, std::vector<std::size_t>(experts_count, each)};
    const auto change = compress::measure_change(ctx, layer, uniform, held_out);
    equal = change.relative();
    compress::report report;
    for (std::size_t e = 0; e < experts_count; ++e) {
      report.parameters += uniform.experts().parameter_count(e);
      report.flops += sums.load(e) * uniform.experts().flops_per_row(e);
    }
    print("the same width for all", report, change);
  }

  const auto least = compress::least_important(compress::change_by_constant(sums), experts_count / 2);
  auto dropped = compress::drop_experts(layer, sums, least);
  auto constants = compress::replace_by_constants(layer, sums, least);
  std::cout << "\nwithout half of the experts\n";
  print("dropped", dropped.report, dropped.measure(ctx, layer, held_out));
  print("constants in their place", constants.report, constants.measure(ctx, layer, held_out));

  // A file that io::load_ragged_layer reads: constants are of the kind "vector".
  const auto path = std::filesystem::temp_directory_path() / "hmoe_prune_layer.safetensors";
  io::ragged_checkpoint_writer writer;
  writer.add(constants.layer, "layers.0.", {.what = "pruned", .by = "mean outputs", .from = "examples/prune_layer"});
  writer.write(path);
  auto loaded = constants.layer;
  loaded.initialize(seed{9});
  io::load_ragged_layer(io::safetensors_file{path}, loaded, "layers.0.");
  std::filesystem::remove(path);
  const auto reloaded = compress::measure_change(ctx, constants.layer, loaded, held_out);

  const bool right =
      unequal < equal && reloaded.largest == 0 && constants.report.measured->squared < dropped.report.measured->squared;
  return right ? 0 : 1;
}
