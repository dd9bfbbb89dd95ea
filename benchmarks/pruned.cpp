// SPDX-License-Identifier: MIT
// Layers of released models' sizes whose experts have kept half of their neurons, at unequal widths
// (pruned/shapes.hpp), beside
//   equal    all experts of half the width: as many parameters
//   panels   unequal widths that are multiples of 32, as neuron_budget::multiple makes them
//   padded   every expert filled up with zeros to the widest one. That one has its full width, so this is also masked
//            execution: the unpruned layer with zeros in place of what was cut
// Times are ratios within one run, in which the layers take turns (pruned/race.hpp). Results are a Markdown table on
// standard output, and JSON lines in --out.
#include <hmoe/core/error.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/io/tuned_table.hpp>

#include "dispatch/loads.hpp"
#include "pruned/packed.hpp"
#include "pruned/race.hpp"
#include "pruned/shapes.hpp"
#include "support/machine.hpp"
#include "support/option_number.hpp"

#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <future>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace benchmarks;

constexpr const char* usage =
    "usage: pruned [--quick] [--shape NAME]... [--format NAME]... [--threads N]... [--tokens T]... [--seconds S] "
    "[--out FILE]\n"
    "  --quick       one thread, 2 seconds for each point: about 10 minutes; else one thread and all cores, 6\n"
    "  --shape NAME  qwen3_30b_a3b, olmoe, gpt_oss_20b, deepseek_v2_lite (default: these), tiny\n"
    "  --format F    f32, bf16, q8, q4 (default: all)\n"
    "  --tokens T    1, 16, 256, 1024 (default) or others\n"
    "  --load L      how tokens spread over experts (default: uniform), see benchmarks/dispatch/loads.hpp\n"
    "  --out FILE    the numbers as JSON lines\n";

struct chosen_options {
  std::vector<std::string> shapes, formats;
  std::vector<std::size_t> threads, tokens;
  std::string out, load = "uniform";
  double seconds = 0;
  bool quick = false;
};

chosen_options parse(int count, char** values) {
  chosen_options chosen;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = values[i];
    const auto value = [&] {
      hmoe::require(i + 1 < count, name, " needs a value");
      return std::string(values[++i]);
    };
    if (name == "--quick")
      chosen.quick = true;
    else if (name == "--shape")
      chosen.shapes.push_back(value());
    else if (name == "--format")
      chosen.formats.push_back(value());
    else if (name == "--threads")
      chosen.threads.push_back(option_number<std::size_t>(name, value()));
    else if (name == "--tokens")
      chosen.tokens.push_back(option_number<std::size_t>(name, value()));
    else if (name == "--seconds")
      chosen.seconds = option_number<double>(name, value());
    else if (name == "--load")
      chosen.load = value();
    else if (name == "--out")
      chosen.out = value();
    else
      hmoe::fail("unknown argument: " + std::string(name) + "\n" + usage);
  }
  if (chosen.shapes.empty())
    for (const pruned_shape& shape : pruned_shapes)
      if (shape.name != "tiny")
        chosen.shapes.emplace_back(shape.name);
  if (chosen.formats.empty())
    chosen.formats.assign(pruned_formats.begin(), pruned_formats.end());
  if (chosen.tokens.empty())
    chosen.tokens = {1, 16, 256, 1024};
  if (chosen.threads.empty()) {
    chosen.threads = {1};
    const std::size_t cores = hmoe::executors::openmp{}.concurrency();
    if (!chosen.quick && cores > 1)
      chosen.threads.push_back(cores);
  }
  if (chosen.seconds == 0)
    chosen.seconds = chosen.quick ? 2 : 6;
  return chosen;
}

const pruned_shape& shape_named(std::string_view name) {
  const auto found = std::ranges::find(pruned_shapes, name, &pruned_shape::name);
  hmoe::require(found != pruned_shapes.end(), "there is no shape ", name, "\n", usage);
  return *found;
}

/// As many experts of the shape as memory has room for in all layers of a race: half of them, a quarter, … of those
/// that the model has; 0: not even two times as many as a token chooses.
std::size_t experts_that_fit(const pruned_shape& shape, std::string_view format) {
  const double weights = 3 * static_cast<double>(shape.d_model * shape.width); // of an expert that is whole
  const double each = 2.5 * weights * bits_per_weight(format) / 8;             // one whole, three of half the width
  const double room = 0.85 * static_cast<double>(available_memory());
  std::size_t count = shape.experts;
  while (count >= 2 * shape.k && static_cast<double>(count) * each > room)
    count /= 2;
  return count >= 2 * shape.k ? count : 0;
}

/// Layers of one shape and format, ready to race.
struct racing_layers {
  std::vector<std::string> names;
  std::vector<std::unique_ptr<any_experts>> layers;
};
racing_layers make_layers(const pruned_shape& shape, std::string_view format) {
  using list = std::vector<std::size_t>;
  const list equal(shape.experts, shape.width / 2), full(shape.experts, shape.width);
  const list ragged = pruned_widths(shape), panels = pruned_widths(shape, 32);
  // Packing takes longer than some of the races: all cores share it.
  std::vector<std::future<std::unique_ptr<any_experts>>> work;
  racing_layers made;
  const auto add = [&](const char* name, const list& widths, const list& kept) {
    made.names.emplace_back(name);
    work.push_back(std::async(std::launch::async, [&shape, format, &widths, &kept] {
      return make_synthetic_experts(shape, format, widths, kept);
    }));
  };
  add("equal", equal, equal);
  add("ragged", ragged, ragged);
  add("panels", panels, panels);
  add("padded", full, ragged);
  for (auto& layer : work)
    made.layers.push_back(layer.get());
  return made;
}

std::string widths_text(const pruned_shape& shape) {
  std::vector<std::size_t> widths = pruned_widths(shape);
  std::ranges::sort(widths);
  const auto zeros = std::ranges::count(widths, 0U), full = std::ranges::count(widths, shape.width);
  const std::size_t n = widths.size();
  return std::to_string(zeros) + " of width 0, quartiles " + std::to_string(widths[n / 4]) + ", " +
         std::to_string(widths[n / 2]) + ", " + std::to_string(widths[3 * n / 4]) + ", " + std::to_string(full) +
         " of the full " + std::to_string(shape.width);
}

/// Times per FLOP of all layers of a point beside those of `equal`, and the time of `padded` beside that of `ragged`:
/// of the shortest passes, or of the medians.
template <class F> std::vector<double> ratios(const std::vector<runner_times>& times, const F& statistic) {
  const auto seconds = [&](std::size_t i) {
    double sum = 0;
    for (const auto& of_assignment : times[i].times)
      sum += statistic(of_assignment);
    return sum;
  };
  const double equal = times[0].per_flop(statistic);
  return {times[1].per_flop(statistic) / equal, times[2].per_flop(statistic) / equal, seconds(3) / seconds(1)};
}

void run(const chosen_options& chosen) {
  std::ofstream out;
  if (!chosen.out.empty()) {
    out.open(chosen.out);
    hmoe::require(out.good(), chosen.out, " cannot be written");
  }
  for (const std::string& name : chosen.shapes)
    static_cast<void>(shape_named(name));
  std::printf(
      "Packed layers, half of the neurons kept. CPU: %s, %s. `ragged`, `panels`: time per FLOP ÷ that of the "
      "layer of equal widths with as many parameters; `padded`: time ÷ that of `ragged`. Of the shortest passes; "
      "in brackets: of the medians. One thread: seconds of the CPU; more: seconds that passed.\n\n",
      hmoe::io::cpu_name().c_str(), HMOE_BENCHMARKS_COMPILER);
  for (const std::string& name : chosen.shapes) {
    const pruned_shape& whole = shape_named(name);
    std::printf("**%s**: %zu × %zu, d_model %zu, top-%zu; %s\n\n", name.c_str(), whole.experts, whole.width,
                whole.d_model, whole.k, widths_text(whole).c_str());
    std::printf("| format | threads | tokens | ragged ÷ equal | panels ÷ equal | padded, masked ÷ ragged | GFLOP/s of "
                "equal | passes |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for (const std::string& format : chosen.formats) {
      pruned_shape shape = whole;
      shape.experts = experts_that_fit(whole, format);
      if (shape.experts == 0) {
        std::printf("| %s | | | left out: memory has room for less than %zu experts | | | | |\n", format.c_str(),
                    2 * whole.k);
        continue;
      }
      const racing_layers made = make_layers(shape, format);
      std::vector<const any_experts*> layers;
      for (const auto& layer : made.layers)
        layers.push_back(layer.get());
      for (const std::size_t threads : chosen.threads)
        for (const std::size_t tokens : chosen.tokens) {
          std::vector<hmoe::assignment<float>> assigned;
          const std::size_t variants = std::max<std::size_t>(1, 32 / tokens + (tokens > 1 && tokens <= 64 ? 4 : 0));
          for (std::uint64_t v = 0; v < variants; ++v)
            assigned.push_back(make_load(chosen.load, tokens, shape.experts, shape.k, v));
          std::vector<hmoe::matrix<float>> outputs;
          const auto times =
              race(layers, assigned, {.tokens = tokens, .threads = threads, .seconds = chosen.seconds}, outputs);
          hmoe::require(std::memcmp(outputs[1].data(), outputs[3].data(), outputs[1].size() * sizeof(float)) == 0, name,
                        ", ", format, ", ", tokens, " tokens: ragged and padded layers differ");
          const std::vector<double> least = ratios(times, shortest), middle = ratios(times, median);
          std::string experts =
              shape.experts == whole.experts ? "" : " (" + std::to_string(shape.experts) + " experts)";
          std::printf("| %s%s | %zu | %zu | %.3f (%.3f) | %.3f (%.3f) | %.2f (%.2f) | %.0f | %zu |\n", format.c_str(),
                      experts.c_str(), threads, tokens, least[0], middle[0], least[1], middle[1], least[2], middle[2],
                      1e-9 / times[0].per_flop(shortest), times[0].times[0].size() * assigned.size());
          std::fflush(stdout);
          for (std::size_t i = 0; i < layers.size() && out.is_open(); ++i)
            out << "{\"shape\": \"" << name << "\", \"format\": \"" << format << "\", \"experts\": " << shape.experts
                << ", \"layer\": \"" << made.names[i] << "\", \"tokens\": " << tokens << ", \"threads\": " << threads
                << ", \"load\": \"" << chosen.load << "\", \"seconds_per_flop\": " << times[i].per_flop(shortest)
                << ", \"median_seconds_per_flop\": " << times[i].per_flop(median) << "}\n";
        }
    }
    std::printf("\n");
  }
}

} // namespace

int main(int count, char** values) {
  try {
    run(parse(count, values));
  } catch (const std::exception& reason) {
    std::cerr << "pruned: " << reason.what() << "\n";
    return 1;
  }
}
