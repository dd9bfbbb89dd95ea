// SPDX-License-Identifier: MIT
// Run by mpiexec, all ranks on one machine: what expert parallelism costs beside bare MPI.
//   bare          MPI_Alltoallv of the rows that go out, then of the results that come back
//   communicator  the same messages by communicators::mpi
//   passage       a forward pass of dispatch::expert_parallel without experts: plan, counts, gathering, combine, and
//                 what ranks read of each other's memory, or with --messages the same messages
//   exposed       what a pass with experts takes longer than the experts alone, with the tokens in 1 to 3 chunks
// Times are of the slowest rank; what is compared takes turns in one run. Results are a Markdown table on standard
// output, and JSON lines in --out.
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/parallel/by_cost.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/mpi.hpp>

#include "dispatch/loads.hpp"
#include "support/option_number.hpp"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr const char* usage =
    "usage: parallel [--tokens T]... [--d-model D] [--width H] [--experts N] [--k K] [--kernels]\n"
    "                [--messages] [--no-experts]\n"
    "                [--seconds S] [--out FILE]\n"
    "  --tokens T   of each rank: 16, 256, 2048 (default) or others\n"
    "  --d-model D  values of a row (default: 1024)\n"
    "  --width H    mean width of the experts, which grow 9 : … : 23 (default: 256)\n"
    "  --experts N  of the layer (default: 32), of which each token gets K (default: 4)\n"
    "  --kernels    instead, on one rank: seconds per FLOP of an expert of --width for 1 to 1024 rows, as "
    "scripts/scale\n"
    "               takes them\n"
    "  --messages   ranks do not read each other's memory\n"
    "  --no-experts only what goes without them, so that shortest times are found soon\n"
    "  --seconds S  for each line of the table (default: 6)\n"
    "  --out FILE   the numbers as JSON lines, appended\n";

struct chosen_options {
  std::vector<std::size_t> tokens;
  std::size_t d_model = 1024, width = 256, experts = 32, k = 4;
  double seconds = 6;
  bool kernels = false, messages = false, experts_run = true;
  std::string out;
};

chosen_options parse(int count, char** values) {
  chosen_options chosen;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = values[i];
    const auto value = [&] {
      hmoe::require(i + 1 < count, name, " needs a value");
      return std::string(values[++i]);
    };
    if (name == "--tokens")
      chosen.tokens.push_back(benchmarks::option_number<std::size_t>(name, value()));
    else if (name == "--d-model")
      chosen.d_model = benchmarks::option_number<std::size_t>(name, value());
    else if (name == "--width")
      chosen.width = benchmarks::option_number<std::size_t>(name, value());
    else if (name == "--experts")
      chosen.experts = benchmarks::option_number<std::size_t>(name, value());
    else if (name == "--k")
      chosen.k = benchmarks::option_number<std::size_t>(name, value());
    else if (name == "--seconds")
      chosen.seconds = benchmarks::option_number<double>(name, value());
    else if (name == "--kernels")
      chosen.kernels = true;
    else if (name == "--messages")
      chosen.messages = true;
    else if (name == "--no-experts")
      chosen.experts_run = false;
    else if (name == "--out")
      chosen.out = value();
    else
      hmoe::fail("unknown argument: " + std::string(name) + "\n" + usage);
  }
  hmoe::require(chosen.k <= chosen.experts, "--k is ", chosen.k, " of --experts ", chosen.experts);
  if (chosen.tokens.empty())
    chosen.tokens = {16, 256, 2048};
  return chosen;
}

/// In place of the experts' strategy: rows and results travel, nothing is computed.
struct no_experts {
  template <class Context, class Experts, class T>
  static void forward(const Context&, const Experts&, hmoe::matrix_view<const T>, hmoe::matrix_view<T>,
                      hmoe::tape<T>&) {}
};

using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
using communicator = hmoe::communicators::mpi;

/// Runs by turns, and the times of each: of the slowest rank.
std::vector<std::vector<double>> take_turns(const communicator& ranks, const std::vector<std::function<void()>>& runs,
                                            double seconds) {
  std::vector<std::vector<double>> times(runs.size());
  double spent = 0;
  for (std::size_t round = 0; round < 8 || (spent < seconds && round < 2000); ++round)
    for (std::size_t turn = 0; turn < runs.size(); ++turn) {
      const std::size_t i = (turn + round) % runs.size();
      MPI_Barrier(ranks.handle());
      const double begin = MPI_Wtime();
      runs[i]();
      double time = MPI_Wtime() - begin;
      MPI_Allreduce(MPI_IN_PLACE, &time, 1, MPI_DOUBLE, MPI_MAX, ranks.handle()); // spent is the same everywhere, too
      if (round >= 3) // caches, pages and the workspace are warm
        times[i].push_back(time);
      spent += time;
    }
  return times;
}

double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::ranges::nth_element(times, middle);
  return *middle;
}

/// Rows between ranks, as MPI counts them: values and where they begin.
struct bare_rows {
  bare_rows(std::span<const std::size_t> rows, std::size_t columns) {
    for (const std::size_t r : rows) {
      begins.push_back(begins.empty() ? 0 : begins.back() + counts.back());
      counts.push_back(static_cast<int>(r * columns));
    }
    values.resize(static_cast<std::size_t>(begins.back() + counts.back()), 1.0F);
  }
  std::vector<int> counts, begins;
  std::vector<float> values;
};

struct line {
  double bytes; ///< out of a rank and back, the mean over ranks
  std::vector<std::vector<double>> times;
};

line measure(const chosen_options& chosen, const communicator& ranks, std::size_t tokens) {
  const hmoe::widths::arithmetic widths{
      .count = chosen.experts, .total = chosen.experts * chosen.width, .first = 9, .last = 23};
  hmoe::expert_set experts{bank{chosen.d_model, widths}};
  experts.initialize(hmoe::seed{7}, 0, {});
  hmoe::placement::problem problem;
  for (std::size_t e = 0; e < chosen.experts; ++e) {
    problem.loads.push_back(1);
    problem.flops_per_row.push_back(static_cast<double>(experts.width(e)));
    problem.bytes.push_back(experts.width(e));
  }
  problem.ranks = ranks.size();
  problem.slots_per_rank = (chosen.experts + ranks.size() - 1) / ranks.size();
  const auto placed = hmoe::placement::by_cost(problem);

  const hmoe::assignment<float> given =
      benchmarks::make_load("uniform", tokens, chosen.experts, chosen.k, ranks.rank());
  hmoe::matrix<float> x(tokens, chosen.d_model), y(tokens, chosen.d_model);
  hmoe::fill_normal(hmoe::vector_view<float>(x.data(), x.size()), 1.0, hmoe::seed{1}, ranks.rank());
  const hmoe::context ctx{hmoe::backends::simd<>{}};
  const auto pass = [&](const auto& strategy, const hmoe::assignment<float>& from, hmoe::matrix<float>& in,
                        hmoe::matrix<float>& out) {
    const hmoe::workspace::scope scope(ctx.workspace());
    hmoe::tape<float> tape(&ctx.workspace(), false);
    tape.assignment().resize_tokens(from.tokens());
    std::ranges::copy(from.offsets(), tape.assignment().offsets().begin());
    tape.assignment().resize_entries();
    std::ranges::copy(from.experts(), tape.assignment().experts().begin());
    std::ranges::copy(from.weights(), tape.assignment().weights().begin());
    strategy.forward(ctx, experts, std::as_const(in).view(), out.view(), tape);
  };

  // What travels, from the strategy's own exchange.
  hmoe::dispatch::row_exchange exchange;
  {
    const hmoe::workspace::scope scope(ctx.workspace());
    hmoe::tape<float> tape(&ctx.workspace(), false);
    tape.assignment() = given;
    hmoe::dispatch::build_plan(ctx, experts, tape);
    exchange.build(ranks, placed, given, std::as_const(tape).plan(), {0, tokens}, chosen.d_model, &ctx.workspace());
  }
  bare_rows out(exchange.rows_out(), chosen.d_model), in(exchange.rows_in(), chosen.d_model),
      results_out(exchange.entries_in(), chosen.d_model), results_in(exchange.entries_out(), chosen.d_model);
  const auto bare = [&](const bare_rows& from, bare_rows& to) {
    MPI_Alltoallv(from.values.data(), from.counts.data(), from.begins.data(), MPI_FLOAT, to.values.data(),
                  to.counts.data(), to.begins.data(), MPI_FLOAT, ranks.handle());
  };
  // The rows that the experts of this rank get, for them alone.
  const std::size_t rows = exchange.experts_in().size();
  hmoe::assignment<float> of_experts;
  of_experts.resize_tokens(rows);
  std::iota(of_experts.offsets().begin(), of_experts.offsets().end(), hmoe::index_t{0});
  of_experts.resize_entries();
  std::ranges::copy(exchange.experts_in(), of_experts.experts().begin());
  std::ranges::fill(of_experts.weights(), 1.0F);
  hmoe::matrix<float> rows_x(rows, chosen.d_model), rows_y(rows, chosen.d_model);
  std::fill_n(rows_x.data(), rows_x.size(), 0.5F);

  using hmoe::dispatch::overlap;
  const hmoe::dispatch::sorted<> inner;
  const hmoe::dispatch::expert_parallel passage{ranks, placed, no_experts{}};
  const hmoe::dispatch::expert_parallel one{ranks, placed, inner}, two{ranks, placed, inner, overlap{2}},
      three{ranks, placed, inner, overlap{3}};
  line result;
  std::vector<std::function<void()>> runs{
      [&] {
        bare(out, in);
        bare(results_out, results_in);
      },
      [&] {
        ranks.all_to_all(out.values, exchange.rows_out(), std::span(in.values), exchange.rows_in(), chosen.d_model);
        ranks.all_to_all(results_out.values, exchange.entries_in(), std::span(results_in.values),
                         exchange.entries_out(), chosen.d_model);
      },
      [&] { pass(passage, given, x, y); }};
  if (chosen.experts_run)
    runs.insert(runs.end(), {[&] { pass(inner, of_experts, rows_x, rows_y); }, [&] { pass(one, given, x, y); },
                             [&] { pass(two, given, x, y); }, [&] { pass(three, given, x, y); }});
  result.times = take_turns(ranks, runs, chosen.seconds);
  std::vector<double> bytes{static_cast<double>((out.values.size() + results_in.values.size()) * sizeof(float))};
  ranks.all_reduce(std::span(bytes));
  result.bytes = bytes[0] / static_cast<double>(ranks.size());
  return result;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Lines of rows and seconds per FLOP: medians, in seconds of the CPU, which do not run while others have the core.
/// Experts take turns, more of them than caches hold.
void run_kernels(const chosen_options& chosen, const communicator& ranks) {
  hmoe::require(ranks.size() == 1, "--kernels is for one rank, there are ", ranks.size());
  hmoe::expert_set experts{bank{chosen.d_model, std::vector<std::size_t>(chosen.experts, chosen.width)}};
  experts.initialize(hmoe::seed{7}, 0, {});
  const hmoe::context ctx{hmoe::backends::simd<>{}};
  for (std::size_t rows = 1; rows <= 1024; rows *= 4) {
    hmoe::matrix<float> x(rows, chosen.d_model), y(rows, chosen.d_model);
    std::fill_n(x.data(), x.size(), 0.5F);
    std::vector<double> times;
    double spent = 0;
    for (std::size_t round = 0; round < 3 + chosen.experts || spent < chosen.seconds; ++round) {
      const hmoe::workspace::scope scope(ctx.workspace());
      hmoe::tape<float> tape(&ctx.workspace(), false);
      auto& assigned = tape.assignment();
      assigned.resize_tokens(rows);
      std::iota(assigned.offsets().begin(), assigned.offsets().end(), hmoe::index_t{0});
      assigned.resize_entries();
      std::ranges::fill(assigned.experts(), static_cast<hmoe::index_t>(round % chosen.experts));
      std::ranges::fill(assigned.weights(), 1.0F);
      const double begin = cpu_seconds();
      hmoe::dispatch::sorted<>{}.forward(ctx, experts, std::as_const(x).view(), y.view(), tape);
      const double time = cpu_seconds() - begin;
      spent += time;
      if (round >= 3)
        times.push_back(time);
    }
    std::printf("%zu %.4g\n", rows, median(times) / (static_cast<double>(rows) * experts.flops_per_row(0)));
    std::fflush(stdout);
  }
}

void run(const chosen_options& chosen, const communicator& ranks) {
  if (chosen.kernels) {
    run_kernels(chosen, ranks);
    return;
  }
  const bool writes = ranks.rank() == 0;
  std::ofstream out;
  if (writes && !chosen.out.empty()) {
    out.open(chosen.out, std::ios::app);
    hmoe::require(out.good(), chosen.out, " cannot be written");
  }
  if (writes)
    std::printf(
        "**%zu ranks**, one thread each; d_model %zu, %zu experts of mean width %zu, top-%zu, uniform. Medians; "
        "in brackets: of the shortest times.\n\n"
        "| tokens of a rank | MB out and back | bare, ms | communicator ÷ bare | passage ÷ bare | experts, ms | "
        "exposed, ms: 1 chunk | 2 | 3 |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        ranks.size(), chosen.d_model, chosen.experts, chosen.width, chosen.k);
  for (const std::size_t tokens : chosen.tokens) {
    const line found = measure(chosen, ranks, tokens);
    if (!writes)
      continue;
    const auto middle = [&](std::size_t i) { return median(found.times[i]); };
    const auto least = [&](std::size_t i) { return std::ranges::min(found.times[i]); };
    std::printf("| %zu | %.2f | %.3f | %.2f (%.2f) | %.2f (%.2f) |", tokens, found.bytes / 1e6, 1e3 * middle(0),
                middle(1) / middle(0), least(1) / least(0), middle(2) / middle(0), least(2) / least(0));
    if (chosen.experts_run)
      std::printf(" %.2f | %.2f | %.2f | %.2f |\n", 1e3 * middle(3), 1e3 * (middle(4) - middle(3)),
                  1e3 * (middle(5) - middle(3)), 1e3 * (middle(6) - middle(3)));
    else
      std::printf("  |  |  |  |\n");
    std::fflush(stdout);
    const char* names[] = {"bare", "communicator", "passage", "experts", "pass", "pass_2_chunks", "pass_3_chunks"};
    for (std::size_t i = 0; i < found.times.size() && out.is_open(); ++i)
      out << "{\"ranks\": " << ranks.size() << ", \"tokens\": " << tokens << ", \"bytes\": " << found.bytes
          << ", \"what\": \"" << names[i] << "\", \"median_seconds\": " << middle(i)
          << ", \"least_seconds\": " << least(i) << ", \"rounds\": " << found.times[i].size() << "}\n";
  }
  if (writes)
    std::printf("\n");
}

} // namespace

int main(int count, char** values) {
  int provided = 0;
  MPI_Init_thread(&count, &values, MPI_THREAD_FUNNELED, &provided);
  try {
    const chosen_options chosen = parse(count, values);
    run(chosen, communicator(MPI_COMM_WORLD, std::size_t{1} << 30, communicator::no_time_limit, !chosen.messages));
  } catch (const std::exception& reason) {
    std::cerr << "parallel: " << reason.what() << "\n";
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
}
