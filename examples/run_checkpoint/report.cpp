// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/io/routing_text.hpp>
#include <hmoe/layer/cost.hpp>
#include <hmoe/statistics/expert_load.hpp>

#include "memory.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace run_checkpoint {
namespace {

using namespace hmoe;

/// The median of some calls behind one that is not counted.
template <class F> double median_seconds(std::size_t repeats, F&& f) {
  f();
  std::vector<double> all(repeats);
  for (double& seconds : all) {
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::ranges::nth_element(all, all.begin() + static_cast<std::ptrdiff_t>(repeats / 2));
  return all[repeats / 2];
}

void print_structure(const opened_layer& opened, const layer_cost& cost) {
  std::size_t least = cost.experts[0].width, most = least, none = 0, total = 0, parameters = 0;
  for (const expert_cost& expert : cost.experts) {
    least = std::min(least, expert.width);
    most = std::max(most, expert.width);
    none += expert.width == 0 ? 1 : 0;
    total += expert.width;
    parameters += expert.parameters;
  }
  const double mean = static_cast<double>(total) / static_cast<double>(cost.experts.size());
  std::cout << "layer: " << cost.experts.size() << " experts, at most " << opened.layer.max_selected()
            << " of them for a token, d_model " << opened.layer.d_model() << ", widths " << least << " to " << most
            << ", mean " << mean << ", " << none << " of width 0; " << static_cast<double>(parameters) / 1e6
            << " million parameters as " << opened.format;
  if (least != most)
    std::cout << "; padded to the widest they would be " << static_cast<double>(most) / mean << " times as many";
  std::cout << "\n";
}

void print_load(const layer_cost& cost, const statistics::expert_load& load) {
  std::cout << "load, as expert:width:tokens\n";
  for (std::size_t e = 0; e < cost.experts.size(); ++e) {
    std::ostringstream text;
    text << e << ':' << cost.experts[e].width << ':' << load.tokens_per_expert[e];
    std::cout << "  " << std::left << std::setw(14) << text.str()
              << (e % 8 == 7 || e + 1 == cost.experts.size() ? "\n" : "");
  }
}

/// Seconds of one expert that does for each token as many multiply-adds as the layer's experts in the mean: what
/// remains when there is nothing to choose, and no matrix is small.
double dense_seconds(const options& chosen, const context_type& ctx, std::size_t width, matrix_view<const float> x,
                     matrix_view<float> y, const std::string& format) {
  const packed_type dense = dense_expert(x.cols(), width, format);
  const expert_rows<float> all{0, x.rows(), x, y};
  return median_seconds(chosen.repeats, [&] {
    const workspace::scope scope(ctx.workspace());
    dense.forward_rows(ctx, {&all, 1});
  });
}

} // namespace

void report(const options& chosen, const opened_layer& opened) {
  const layer_type& layer = opened.layer;
  const layer_cost cost = layer.cost();
  print_structure(opened, cost);
  const context_type ctx{backends::simd{}, executors::openmp{chosen.threads}};
  matrix<float> x(chosen.tokens, layer.d_model()), y(chosen.tokens, layer.d_model());
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{1}, 0);
  matrix<float> router_x(layer.reads_router_x() ? chosen.tokens : 0, layer.router_d_model());
  fill_normal(vector_view<float>(router_x.data(), router_x.size()), 1.0, seed{1}, 1);
  std::vector<index_t> token_ids(chosen.tokens); // some routers read them: 0, 1, …, 15, 0, …
  for (std::size_t t = 0; t < token_ids.size(); ++t)
    token_ids[t] = static_cast<index_t>(t % 16);
  const routing_inputs<float> inputs{.token_ids = {token_ids.data(), token_ids.size()}, .router_x = router_x};
  const std::size_t workspace = layer.workspace_bytes(ctx, chosen.tokens);
  const double seconds = median_seconds(chosen.repeats, [&] { layer.forward(ctx, x, y, inputs); });

  auto tape = layer.make_tape(chosen.tokens);
  layer.forward(ctx, x, y, tape, inputs);
  statistics::expert_load load(layer.size());
  load.add(std::as_const(tape).assignment());
  print_load(cost, load);
  if (!chosen.trace.empty()) {
    io::routing_text_writer<float> writer(chosen.trace);
    writer.add(io::make_routing_log_record(tape, layer.size()));
    writer.close();
  }

  double flops = 0, widths = 0, packed = 0, used = 0, most = 0, rows = 0;
  for (std::size_t e = 0; e < layer.size(); ++e) {
    const expert_cost& expert = cost.experts[e];
    const auto tokens = static_cast<double>(load.tokens_per_expert[e]);
    rows += tokens;
    flops += tokens * expert.flops_per_token;
    widths += tokens * static_cast<double>(expert.width);
    packed += static_cast<double>(expert.bytes);
    used += tokens == 0 ? 0 : static_cast<double>(expert.bytes);
    most = std::max(most, expert.flops_per_token);
  }
  const auto tokens = static_cast<double>(chosen.tokens);
  std::cout << "time: " << seconds * 1e3 << " ms for " << chosen.tokens << " tokens with " << chosen.threads
            << " threads, " << tokens / seconds << " tokens/s, " << flops / seconds / 1e9 << " GFLOP/s, "
            << used / seconds / 1e9 << " GB/s of weights\n";
  if (const auto width = static_cast<std::size_t>(widths / tokens); width != 0) {
    const double dense = dense_seconds(chosen, ctx, width, x, y, opened.format);
    std::cout << "efficiency: " << 100 * dense / seconds << " % of one expert of the activated width " << width
              << " for all tokens; experts padded to the widest would take " << most * rows / flops
              << " times as many operations\n";
  }
  std::cout << "memory: " << megabytes(packed) << " of packed weights, " << megabytes(static_cast<double>(workspace))
            << " of workspace; of the process beside mapped files "
            << megabytes(bytes_in("/proc/self/status", "RssAnon")) << ", peak with pages of mapped files "
            << megabytes(bytes_in("/proc/self/status", "VmHWM")) << "\n";
}

} // namespace run_checkpoint
