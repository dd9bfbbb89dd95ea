// SPDX-License-Identifier: MIT
#include "run.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "checkpoint.hpp"
#include "errors.hpp"
#include "interrupt.hpp"
#include "progress.hpp"
#include "trainer.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <iostream>

namespace language_model {
namespace {

std::string run_name(const run_config& config) { return config.what.name + "-seed" + std::to_string(config.seed); }

std::string checksum_of(const nlohmann::json& config, const nlohmann::json& results) {
  return to_hex(checksum().add(dump(config)).add(dump(results)).value());
}

bool has_numbers(const nlohmann::json& json, std::size_t count) {
  return json.is_array() && json.size() == count &&
         std::ranges::all_of(json, [](const nlohmann::json& entry) { return entry.is_number(); });
}

/// Whether the results have what a comparison reads of them. Files of older versions have no checksum.
bool is_complete(const nlohmann::json& results, const run_config& config) {
  if (!results.is_object() || !results.contains("final") || !results.at("final").is_object())
    return false;
  const auto& final = results.at("final");
  for (const char* key : {"bits_per_byte", "activated_parameters", "activated_width", "training_activated_width",
                          "flops_per_token", "tokens_per_second", "seconds", "tokens"})
    if (!final.contains(key) || !final.at(key).is_number())
      return false;
  if (!final.contains("activated_width_per_layer") || !final.contains("share_per_layer"))
    return false;
  const auto& shares = final.at("share_per_layer");
  return has_numbers(final.at("activated_width_per_layer"), config.shape.blocks) && shares.is_array() &&
         shares.size() == config.shape.blocks && std::ranges::all_of(shares, [&](const nlohmann::json& layer) {
           return has_numbers(layer, config.what.widths.size());
         });
}

/// The results that an earlier call left, or nothing where they are damaged, which a line on std::cerr tells.
std::optional<nlohmann::json> read_results(const run_files& files, const run_config& config) {
  const auto file = nlohmann::json::parse(read_file(files.results), nullptr, false);
  const bool whole = file.is_object() && file.contains("config") && file.at("config").is_object() &&
                     file.contains("run") && file.at("run").is_object();
  if (whole && (!file.contains("checksum") || file.at("checksum") == checksum_of(file.at("config"), file.at("run")))) {
    require_same_config(file.at("config"), to_json(config), files.results.string());
    if (is_complete(file.at("run"), config))
      return file.at("run");
  }
  std::cerr << files.results.string() << " is damaged: it is made again "
            << (std::filesystem::exists(files.checkpoint) ? "from " + files.checkpoint.string() : "by training again")
            << "\n";
  return std::nullopt;
}

void save(const std::filesystem::path& path, trainer& training, bool write) {
  const checkpoint saved = training.save();
  if (write)
    save_checkpoint(path, saved);
}

} // namespace

run_files::run_files(const std::filesystem::path& folder, const run_config& config)
    : checkpoint(folder / (run_name(config) + ".checkpoint")), results(folder / (run_name(config) + ".json")),
      routing(folder / (run_name(config) + ".routing")) {}

std::string dump(const nlohmann::json& json) {
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::optional<nlohmann::json> run(const run_config& config, const corpus& text, const run_files& files,
                                  std::size_t threads, const process_group* group, double save_seconds) {
  if (std::filesystem::exists(files.results))
    if (auto results = read_results(files, config))
      return results;

  trainer training(config, text, threads, group);
  const bool first = group == nullptr || group->rank() == 0;
  if (std::filesystem::exists(files.checkpoint)) {
    try {
      training.restore(load_checkpoint(files.checkpoint));
    } catch (const std::exception& e) {
      throw hmoe::error("cannot resume from " + files.checkpoint.string() + ": " + reason(e) +
                        "; remove the file to train from the beginning");
    }
    if (first)
      std::cerr << run_name(config) << ": resumed after step " << training.steps() << "\n";
  }
  const auto state = [&] { return progress::state{training.fraction_done(), training.last_loss(), training.tokens()}; };
  {
    std::optional<progress> shown;
    if (first)
      shown.emplace(run_name(config), state());
    auto saved = std::chrono::steady_clock::now();
    while (!training.finished()) {
      training.step();
      if (shown)
        shown->update(state());
      const auto now = std::chrono::steady_clock::now();
      // Whether any process is to stop, and whether the first one wants to save.
      std::array<std::uint64_t, 2> wanted{
          interrupt::requested() ? 1U : 0U,
          first && std::chrono::duration<double>(now - saved).count() >= save_seconds ? 1U : 0U};
      if (group != nullptr)
        group->sum(wanted);
      const bool stop = wanted[0] != 0;
      if (stop || wanted[1] != 0) {
        save(files.checkpoint, training, first);
        saved = now;
      }
      if (stop)
        return std::nullopt;
    }
  }
  save(files.checkpoint, training, first);
  nlohmann::json results = training.results();
  if (!first)
    return results;
  training.write_routing(files.routing.string());
  const nlohmann::json described = to_json(config);
  write_file(files.results,
             dump({{"config", described}, {"run", results}, {"checksum", checksum_of(described, results)}}));
  return results;
}

} // namespace language_model
