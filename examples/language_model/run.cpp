// SPDX-License-Identifier: MIT
#include "run.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "checkpoint.hpp"
#include "interrupt.hpp"
#include "progress.hpp"
#include "trainer.hpp"

#include <chrono>
#include <iostream>

namespace language_model {
namespace {

std::string run_name(const run_config& config) { return config.what.name + "-seed" + std::to_string(config.seed); }

nlohmann::json read_results(const std::filesystem::path& path, const run_config& config) {
  const auto file = nlohmann::json::parse(read_file(path), nullptr, false);
  hmoe::require(file.is_object() && file.contains("config") && file.contains("run"), path.string(),
                " is not the results file of a run; remove it to train that run again");
  require_same_config(file.at("config"), to_json(config), path.string());
  return file.at("run");
}

} // namespace

run_files::run_files(const std::filesystem::path& folder, const run_config& config)
    : checkpoint(folder / (run_name(config) + ".checkpoint")), results(folder / (run_name(config) + ".json")) {}

std::string dump(const nlohmann::json& json) {
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::optional<nlohmann::json> run(const run_config& config, const corpus& text, const run_files& files,
                                  std::size_t threads, double save_seconds) {
  if (std::filesystem::exists(files.results))
    return read_results(files.results, config);

  trainer training(config, text, threads);
  if (std::filesystem::exists(files.checkpoint)) {
    try {
      training.restore(load_checkpoint(files.checkpoint));
    } catch (const std::exception& e) {
      throw hmoe::error("cannot resume from " + files.checkpoint.string() + ": " + e.what());
    }
    std::cerr << run_name(config) << ": resumed after step " << training.steps() << "\n";
  }
  const auto state = [&] { return progress::state{training.fraction_done(), training.last_loss(), training.tokens()}; };
  {
    progress shown(run_name(config), state());
    auto saved = std::chrono::steady_clock::now();
    while (!training.finished()) {
      training.step();
      shown.update(state());
      const auto now = std::chrono::steady_clock::now();
      const bool stop = interrupt::requested();
      if (stop || std::chrono::duration<double>(now - saved).count() >= save_seconds) {
        save_checkpoint(files.checkpoint, training.save());
        saved = now;
      }
      if (stop)
        return std::nullopt;
    }
  }
  save_checkpoint(files.checkpoint, training.save());
  nlohmann::json results = training.results();
  write_file(files.results, dump({{"config", to_json(config)}, {"run", results}}));
  return results;
}

} // namespace language_model
