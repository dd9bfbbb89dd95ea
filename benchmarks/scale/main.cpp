// SPDX-License-Identifier: MIT
// A simulation: the forward pass and the training step of one layer with expert parallelism on many ranks, run by
// smpirun. Routing, plans, placement and what travels are those of the library's own sources; how long it travels
// SimGrid says, and how long experts take a table of times. See scripts/scale.
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/parallel/by_cost.hpp>
#include <hmoe/parallel/expert_parallel.hpp>

#include "communicator.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

/// How long an expert takes for some rows: by a table of seconds per FLOP for numbers of rows, interpolated between the
/// logarithms of both, and `fixed` seconds.
struct kernel_times {
  std::vector<std::pair<double, double>> table{};
  double fixed = 0;

  [[nodiscard]] double seconds(double rows, double flops_per_row) const {
    if (rows == 0)
      return 0;
    auto next = std::ranges::find_if(table, [&](const auto& entry) { return entry.first >= rows; });
    double per_flop = 0;
    if (next == table.begin())
      per_flop = table.front().second;
    else if (next == table.end())
      per_flop = table.back().second;
    else {
      const auto& [r0, s0] = *std::prev(next);
      const auto& [r1, s1] = *next;
      per_flop = std::exp(std::lerp(std::log(s0), std::log(s1), std::log(rows / r0) / std::log(r1 / r0)));
    }
    return fixed + rows * flops_per_row * per_flop;
  }
};

/// What all ranks have in common; they are threads of one process here.
struct scenario {
  std::size_t ranks, experts_per_rank = 4, tokens = 512, k = 8;
  double d_model = 0, mean_width = 0, row_bytes = 0, memory_bandwidth = 0;
  kernel_times times{};
  std::vector<double> widths{}, loads{}, sums{}; ///< by expert; sums of the loads up to it, it included

  [[nodiscard]] std::size_t experts() const { return ranks * experts_per_rank; }
  [[nodiscard]] double flops_per_row(std::size_t e) const { return 6 * d_model * widths[e]; }
};

/// In place of the experts' strategy: their time.
struct timed_experts {
  const scenario* of;

  template <class Context, class Experts, class T>
  void forward(const Context&, const Experts&, hmoe::matrix_view<const T>, hmoe::matrix_view<T>,
               hmoe::tape<T>& tape) const {
    work(std::as_const(tape), 1);
  }
  /// Each product of the forward pass has two in the backward pass, of as many FLOPs each.
  template <class Context, class Experts, class T>
  void backward(const Context&, const Experts&, hmoe::tape<T>& tape, hmoe::matrix_view<const T>, hmoe::matrix_view<T>,
                hmoe::vector_view<T>, Experts&) const {
    work(std::as_const(tape), 2);
  }
  template <class T> void work(const hmoe::tape<T>& tape, double times) const {
    std::map<hmoe::index_t, double> rows;
    for (const hmoe::index_t e : tape.assignment().experts())
      ++rows[e];
    double seconds = 0;
    for (const auto& [e, count] : rows)
      seconds += of->times.seconds(count, of->flops_per_row(e));
    simgrid::s4u::this_actor::sleep_for(times * seconds);
  }
};

double number(const char* name) {
  const char* text = std::getenv(name);
  hmoe::require(text != nullptr, "the environment has no ", name);
  return std::stod(text);
}

scenario make_scenario(std::size_t ranks) {
  scenario made{.ranks = ranks,
                .tokens = static_cast<std::size_t>(number("HMOE_SCALE_TOKENS")),
                .d_model = number("HMOE_SCALE_D_MODEL"),
                .mean_width = number("HMOE_SCALE_WIDTH"),
                .row_bytes = number("HMOE_SCALE_ROW_BYTES"),
                .memory_bandwidth = number("HMOE_SCALE_MEMORY_BANDWIDTH")};
  made.times.fixed = number("HMOE_SCALE_FIXED_SECONDS");
  std::istringstream table(std::getenv("HMOE_SCALE_KERNELS")); // rows seconds-per-FLOP …
  for (double rows = 0, seconds = 0; table >> rows >> seconds;)
    made.times.table.emplace_back(rows, seconds);
  hmoe::require(!made.times.table.empty(), "HMOE_SCALE_KERNELS has no times");
  // Widths 9 : … : 23 as in the paper, Zipf loads of exponent 1 in random order.
  const std::size_t n = made.experts();
  for (std::size_t e = 0; e < n; ++e) {
    const double along = n == 1 ? 0.5 : static_cast<double>(e) / static_cast<double>(n - 1);
    made.widths.push_back(made.mean_width * (9 + 14 * along) / 16);
    made.loads.push_back(1.0 / static_cast<double>(e + 1));
  }
  std::ranges::shuffle(made.loads, std::mt19937_64{7});
  double sum = 0;
  for (const double load : made.loads)
    made.sums.push_back(sum += load);
  return made;
}

/// k different experts for each token, drawn by load.
hmoe::assignment<float> draw(const scenario& s, std::size_t rank) {
  std::mt19937_64 random{rank + 1};
  std::uniform_real_distribution<double> place(0, s.sums.back());
  hmoe::assignment<float> made;
  made.resize_tokens(s.tokens);
  for (std::size_t t = 0; t < s.tokens; ++t)
    made.offsets()[t + 1] = static_cast<hmoe::index_t>(s.k);
  made.sum_counts();
  made.resize_entries();
  std::vector<hmoe::index_t> chosen;
  for (std::size_t t = 0; t < s.tokens; ++t) {
    chosen.clear();
    while (chosen.size() < s.k) {
      const auto at = std::ranges::lower_bound(s.sums, place(random)) - s.sums.begin();
      const auto e =
          static_cast<hmoe::index_t>(std::min<std::ptrdiff_t>(at, static_cast<std::ptrdiff_t>(s.experts()) - 1));
      if (std::ranges::find(chosen, e) == chosen.end())
        chosen.push_back(e);
    }
    std::ranges::sort(chosen);
    std::ranges::copy(chosen, made.experts().begin() + static_cast<std::ptrdiff_t>(t * s.k));
  }
  std::ranges::fill(made.weights(), 1.0F / static_cast<float>(s.k));
  return made;
}

hmoe::expert_placement place(const scenario& s, const std::string& how) {
  hmoe::placement::problem p;
  p.ranks = s.ranks;
  p.nodes = std::string(std::getenv("HMOE_SCALE_PLATFORM")) == "gpus" ? (s.ranks + 7) / 8 : 1;
  for (std::size_t e = 0; e < s.experts(); ++e) {
    // Of a token's k different experts a hot one is chosen once.
    p.loads.push_back(1 - std::pow(1 - s.loads[e] / s.sums.back(), static_cast<double>(s.k)));
    p.flops_per_row.push_back(s.flops_per_row(e));
    p.bytes.push_back(static_cast<std::size_t>(s.widths[e]));
  }
  p.slots_per_rank = s.experts_per_rank + (how == "replicas" ? 1 : 0);
  if (how == "round_robin")
    return hmoe::placement::round_robin(p);
  return hmoe::placement::by_cost(p);
}

using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;

/// Gradients that several ranks have parts of, as training::sum_gradients adds them up: those of the router, of which
/// each rank adds up a part for all, and those of each expert with replicas, of which each of its ranks does, expert
/// after expert.
void sum_gradients(const scenario& s, const scale::communicator& ranks, const hmoe::expert_placement& placed) {
  const std::size_t self = ranks.rank();
  const auto both_ways = [&](const std::vector<double>& bytes) { // parts, then their sums
    ranks.begin_bytes(bytes, bytes).finish();
    ranks.begin_bytes(bytes, bytes).finish();
  };
  const double router = 4 * s.d_model * static_cast<double>(s.experts());
  std::vector<double> bytes(s.ranks, router / static_cast<double>(s.ranks));
  bytes[self] = 0;
  both_ways(bytes);
  for (std::size_t e = 0; e < s.experts(); ++e) {
    const auto replicas = placed.replicas(e);
    if (replicas.size() == 1)
      continue;
    std::ranges::fill(bytes, 0.0);
    if (placed.has(self, e)) // three matrices, in values of a row
      for (const hmoe::replica& r : replicas)
        if (r.rank != self)
          bytes[r.rank] = 3 * s.widths[e] * s.row_bytes / static_cast<double>(replicas.size());
    both_ways(bytes);
  }
}

/// Seconds of the slowest rank, of a forward pass, or of a training step: forward, backward and the sums of gradients.
double pass(const scenario& s, const scale::communicator& ranks, hmoe::expert_set<bank>& experts,
            const hmoe::expert_placement& placed, std::size_t chunks, bool training) {
  const hmoe::dispatch::expert_parallel strategy{ranks, placed, timed_experts{&s}, hmoe::dispatch::overlap{chunks}};
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  hmoe::matrix<float> x(s.tokens, scale::communicator::row_columns), y(s.tokens, scale::communicator::row_columns);
  hmoe::tape<float> tape(&ctx.workspace(), training);
  tape.assignment() = draw(s, ranks.rank());
  MPI_Barrier(MPI_COMM_WORLD);
  const double begin = MPI_Wtime();
  strategy.forward(ctx, experts, std::as_const(x).view(), y.view(), tape);
  if (training) {
    std::vector<float> d_weights(tape.assignment().size());
    strategy.backward(ctx, experts, tape, std::as_const(y).view(), x.view(), hmoe::vector_view<float>(d_weights),
                      experts); // of which nothing is written
    sum_gradients(s, ranks, placed);
  }
  double seconds = MPI_Wtime() - begin;
  MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return seconds;
}

} // namespace

int main(int count, char** values) {
  MPI_Init(&count, &values);
  try {
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    // Made once, by the rank that comes first: ranks share the memory of the process.
    static const scenario s = make_scenario(static_cast<std::size_t>(size));
    static hmoe::expert_set<bank> experts{
        bank{scale::communicator::row_columns, std::vector<std::size_t>(s.experts(), 1)}};
    static std::map<std::string, hmoe::expert_placement> placements;
    const scale::communicator ranks(s.row_bytes, s.memory_bandwidth);
    for (int i = 1; i + 1 < count; i += 2) { // PLACEMENT CHUNKS …
      const std::string how = values[i];
      const std::size_t chunks = std::stoul(values[i + 1]);
      auto found = placements.find(how);
      if (found == placements.end())
        found = placements.emplace(how, place(s, how)).first;
      for (const bool training : {false, true}) {
        const double seconds = pass(s, ranks, experts, found->second, chunks, training);
        if (ranks.rank() != 0)
          continue;
        std::printf("{\"what\": \"%s\", \"platform\": \"%s\", \"ranks\": %d, \"placement\": \"%s\", \"chunks\": %zu, "
                    "\"seconds\": %.9g, \"replicas\": %zu}\n",
                    training ? "step" : "forward", std::getenv("HMOE_SCALE_PLATFORM"), size, how.c_str(), chunks,
                    seconds, found->second.slots());
        std::fflush(stdout);
      }
    }
  } catch (const std::exception& reason) {
    std::fprintf(stderr, "scale: %s\n", reason.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
}
