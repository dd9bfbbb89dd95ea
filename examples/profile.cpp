// SPDX-License-Identifier: MIT
// Where the time of a layer goes: totals of each stage, counters of the CPU, and a timeline for ui.perfetto.dev.
//   profile [TRACE.json]
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/probes/counters.hpp>
#include <hmoe/probes/stages.hpp>
#include <hmoe/probes/trace.hpp>
#include <hmoe/routing/router.hpp>

#include <iostream>
#include <string>
#include <utility>
#include <vector>

using namespace hmoe;

int main(int count, char** arguments) {
  constexpr std::size_t tokens = 256, d_model = 64;
  moe_layer layer{
      expert_set{experts::glu_bank<float, experts::silu>{d_model, std::vector<std::size_t>{32, 64, 96, 192}}},
      routing::top_k_router<float>{d_model, 4, 2}};
  layer.initialize(seed{1});
  matrix<float> x(tokens, d_model), y(tokens, d_model), dx(tokens, d_model);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);

  // One training step in a context with this probe.
  const auto train = [&](auto probe) {
    context cpu{backends::reference{}, executors::openmp{2}, std::move(probe)};
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(cpu, x, y, tape);
    layer.backward(cpu, tape, y, dx, gradients);
    return std::move(cpu.probe());
  };

  std::cout << train(probes::stages{layer.size()}).table() << '\n';
  std::cout << train(probes::counters{}).table() << '\n';
  const std::string path = count > 1 ? arguments[1] : "profile.json";
  auto trace = train(probes::trace{path});
  trace.write();
  std::cout << path << ": " << trace.kept() << " events, open it in https://ui.perfetto.dev\n";
}
