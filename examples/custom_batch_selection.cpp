// SPDX-License-Identifier: MIT
// A selection of your own that sees the whole batch, where tokens compete for experts.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/batch_selection_laws.hpp>

#include <iostream>

using namespace hmoe;

/// First come, first served: each token, in the order of the batch, gets the most probable expert that has room left.
/// An expert has room for ⌈T/N⌉ tokens, so no two loads differ by more than that, and every token gets an expert.
struct first_come {
  [[nodiscard]] static std::size_t max_selected(std::size_t) { return 1; }
  // What a call takes, so that layer.workspace_bytes can count it.
  static void lay_out(std::pmr::memory_resource* memory, std::size_t, std::size_t experts) {
    const buffer<std::size_t> room(experts, memory);
  }

  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource* memory) const {
    const std::size_t tokens = trace.tokens(), experts = trace.expert_count();
    buffer<std::size_t> room(experts, memory);
    room.fill((tokens + experts - 1) / experts);
    for (std::size_t t = 0; t < tokens; ++t) {
      index_t best = no_index;
      do
        best = routing::next_preferred(trace.probabilities().row(t), best);
      while (room[best] == 0);
      --room[best];
      chosen(t, 0) = best;
      counts[t] = 1;
    }
  }
};

int main() {
  const testing::report laws = testing::check_batch_selection<float>(
      first_come{}, /*experts=*/5, {.may_choose_none = false, .treats_tokens_alike = false});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{16, {8, 16, 24, 32}}},
                  routing::router{routing::linear<float>{16, 4}, first_come{}, routing::raw{}}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});
  matrix<float> x(1000, 16), y(1000, 16);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(context{backends::reference{}}, x, y, tape);
  for (std::size_t e = 0; e < layer.size(); ++e)
    std::cout << "expert " << e << ": " << tape.trace().tokens_per_expert()[e] << " tokens\n";
  return laws.ok() ? 0 : 1;
}
