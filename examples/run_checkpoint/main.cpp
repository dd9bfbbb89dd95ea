// SPDX-License-Identifier: MIT
// Packs a layer of a released or pruned model from its checkpoint, runs a batch, and tells the layer's structure, the
// load of its experts, time, efficiency and memory. Without a checkpoint it makes one of a model's shape with random
// weights.

#include "memory.hpp"
#include "open_layer.hpp"
#include "options.hpp"
#include "report.hpp"
#include "synthetic_checkpoint.hpp"

#include <CLI/CLI.hpp>

#include <chrono>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory_resource>
#include <string>
#include <system_error>
#include <vector>

namespace run_checkpoint {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A checkpoint of random weights, which goes with this object unless it is to be kept; what is mapped of it stays.
class made_checkpoint {
public:
  explicit made_checkpoint(const options& chosen) : kept_(!chosen.make.empty()) {
    const auto start = std::chrono::steady_clock::now();
    const model_shape& shape = shape_named(chosen.shape);
    path_ = kept_ ? std::filesystem::absolute(chosen.make)
                  : std::filesystem::temp_directory_path() /
                        ("hmoe_run_checkpoint_" + std::to_string(start.time_since_epoch().count()));
    const double part = chosen.kept == 0 ? 1 : static_cast<double>(chosen.kept) / 100;
    const std::size_t experts = experts_that_fit(shape, part, path_.parent_path());
    if (chosen.kept == 0) {
      std::filesystem::create_directories(path_);
      write_model(shape, experts, path_);
    } else {
      write_pruned(shape, experts, part, path_.string());
    }
    std::cout << "made " << path_.string() << ": " << shape.name << ", " << experts << " of " << shape.experts
              << " experts, " << 100 * part << " % of the neurons, " << megabytes(bytes()) << " in "
              << seconds_since(start) << " s\n";
  }
  made_checkpoint(const made_checkpoint&) = delete;
  made_checkpoint& operator=(const made_checkpoint&) = delete;
  ~made_checkpoint() {
    std::error_code ignored;
    if (!kept_)
      std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string path() const { return path_.string(); }

private:
  [[nodiscard]] double bytes() const {
    const auto file = std::filesystem::is_directory(path_) ? path_ / "model.safetensors" : path_;
    return static_cast<double>(std::filesystem::file_size(file));
  }

  bool kept_;
  std::filesystem::path path_;
};

opened_layer open_timed(const options& chosen, const std::string& path, counted_memory& memory) {
  memory.start_peak();
  const double before = memory.in_use();
  const auto start = std::chrono::steady_clock::now();
  opened_layer opened = open_layer(chosen, path);
  std::cout << (opened.mapped ? "mapped in " : "packed in ") << seconds_since(start) << " s; took "
            << megabytes(memory.in_use() - before) << " of memory, at most " << megabytes(memory.peak() - before)
            << " meanwhile\n";
  return opened;
}

void run(options chosen, counted_memory& memory) {
  if (chosen.checkpoint.empty()) {
    if (chosen.k == 0)
      chosen.k = shape_named(chosen.shape).k;
    const made_checkpoint made(chosen);
    report(chosen, open_timed(chosen, made.path(), memory));
  } else {
    if (chosen.k == 0)
      chosen.k = 2;
    report(chosen, open_timed(chosen, chosen.checkpoint, memory));
  }
}

void add_options(CLI::App& app, options& o) {
  std::vector<std::string> shapes;
  for (const model_shape& shape : model_shapes())
    shapes.emplace_back(shape.name);
  app.add_option("checkpoint", o.checkpoint,
                 "A model folder (config.json and safetensors), a file of unequal experts, or one of packed experts "
                 "(--save); without it one is made");
  app.add_option("--layer", o.layer, "Layer of the model folder")->capture_default_str();
  app.add_option("--prefix", o.prefix, "The layer's tensors in a file begin with it");
  app.add_option("--k", o.k, "Experts of a token, of a file's layer (default: 2, or as the shape)")
      ->check(CLI::Range(1, 4096));

  app.add_option("--shape", o.shape, "Of the checkpoint to make")
      ->capture_default_str()
      ->check(CLI::IsMember(shapes))
      ->group("Making one");
  app.add_option(
         "--kept", o.kept,
         "Makes a file of unequal experts, as pruning leaves them: percent of the neurons that there are, widths "
         "from 0 to the full one (default: a model folder, all experts of full width)")
      ->check(CLI::Range(1, 100))
      ->group("Making one");
  app.add_option("--make", o.make, "Keeps the checkpoint that is made there")->group("Making one");

  app.add_option(
         "--prune", o.prune,
         "Keeps so many percent of the neurons, those that matter most to a batch of random tokens; takes memory "
         "for the layer as floats")
      ->check(CLI::Range(1, 99));
  app.add_option("--format", o.format, "Of packed weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "q8", "q4", "mxfp4"}));
  app.add_option("--save", o.save, "Writes the packed layer, to be mapped the next time");
  app.add_option("--dump-trace", o.trace, "Writes the routing of the batch, as JSON lines");
  app.add_option("--tokens", o.tokens, "Of the batch")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  app.add_option("--threads", o.threads, "Threads")->capture_default_str()->check(CLI::Range(1, 4096));
  app.add_option("--repeats", o.repeats, "Passes that are timed; the median counts")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
}

} // namespace
} // namespace run_checkpoint

int main(int argc, char** argv) {
  CLI::App app(
      "Packs a layer of a checkpoint, runs a batch, and tells its structure, load, time, efficiency and memory "
      "(hmoe).",
      "run_checkpoint");
  run_checkpoint::options chosen;
  run_checkpoint::add_options(app, chosen);
  CLI11_PARSE(app, argc, argv);
  static run_checkpoint::counted_memory memory;
  std::pmr::set_default_resource(&memory);
  try {
    run_checkpoint::run(chosen, memory);
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
}
