// SPDX-License-Identifier: MIT
#include "comparison.hpp"

#include "batches.hpp"
#include "bytes.hpp"
#include "feed_forwards.hpp"
#include "machine.hpp"
#include "run.hpp"
#include "trainer.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

namespace language_model {
namespace {

using finished_runs = std::map<std::string, nlohmann::json>; // name of the variant → its runs

double mean_final(const nlohmann::json& runs, const char* key) {
  double sum = 0.0;
  for (const auto& run : runs)
    sum += run.at("final").at(key).get<double>();
  return sum / static_cast<double>(runs.size());
}

/// Activated width per token and layer over the whole training: what decides how many tokens a budget buys.
std::optional<double> training_width(const finished_runs& finished, const std::string& name) {
  const auto found = finished.find(name);
  if (found == finished.end() || found->second.empty())
    return std::nullopt;
  return mean_final(found->second, "training_activated_width");
}

bool has_control(const std::vector<variant>& variants, const variant& v) {
  return std::ranges::any_of(variants, [&](const variant& other) { return other.control_of == v.name; });
}

/// The homogeneous top-k variant with load balance whose activated width is closest to `width`, within 2 %.
const variant* matching_control(const std::vector<variant>& variants, double width) {
  const variant* best = nullptr;
  double best_distance = 0.02 * width;
  for (const auto& v : variants) {
    if (!v.homogeneous() || v.router.kind != "top-k" || v.coefficient("load-balance") == 0.0)
      continue;
    const double distance = std::abs(v.router.value() * v.mean_width() - width);
    if (distance <= best_distance) {
      best = &v;
      best_distance = distance;
    }
  }
  return best;
}

/// Name of each variant's control. Variants that are controls, or could be, have none.
std::map<std::string, std::string> controls(const std::vector<variant>& variants, const finished_runs& finished) {
  std::map<std::string, std::string> result;
  for (const auto& v : variants) {
    if (!v.control_of.empty())
      result[v.control_of] = v.name;
  }
  for (const auto& v : variants) {
    const auto width = training_width(finished, v.name);
    if (result.contains(v.name) || !v.control_of.empty() || !width)
      continue;
    const variant* control = matching_control(variants, *width);
    if (control != nullptr && control->name != v.name)
      result[v.name] = control->name;
  }
  return result;
}

/// A control for each finished variant that has none and is not a homogeneous layer itself, which needs none.
std::vector<variant> missing_controls(const std::vector<variant>& variants, const finished_runs& finished) {
  std::vector<variant> all = variants;
  for (const auto& v : variants) {
    const auto width = training_width(finished, v.name);
    if (!width || v.homogeneous() || has_control(all, v) || matching_control(all, *width) != nullptr)
      continue;
    all.push_back(homogeneous_control(v, *width));
  }
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(variants.size()));
  return all;
}

nlohmann::json describe(const comparison& wanted, const corpus& text, const std::vector<variant>& variants,
                        const finished_runs& finished) {
  const auto control_names = controls(variants, finished);
  auto list = nlohmann::json::array();
  for (const auto& v : variants) {
    const auto runs = finished.find(v.name);
    if (runs == finished.end())
      continue;
    nlohmann::json entry = to_json(v);
    const auto control = control_names.find(v.name);
    entry["control"] = control == control_names.end() ? nlohmann::json(nullptr) : nlohmann::json(control->second);
    entry["predicted_share"] = predicted_shares(v);
    const auto width = predicted_activated_width(v);
    entry["predicted_activated_width"] = width ? nlohmann::json(*width) : nlohmann::json(nullptr);
    entry["runs"] = runs->second;
    list.push_back(std::move(entry));
  }
  return {{"format", "hmoe-results-1"},
          {"machine", describe_machine(wanted.threads)},
          {"command", wanted.command},
          {"corpus", describe_corpus(text, wanted.base)},
          {"model", describe_model(wanted.base)},
          {"budget_flops", wanted.base.budget_flops},
          {"variants", std::move(list)}};
}

} // namespace

nlohmann::json describe_corpus(const corpus& text, const run_config& base) {
  const auto windows =
      evaluation_windows(text.heldout.size(), base.shape.context, base.how.batch, base.how.evaluation_tokens);
  return {{"name", text.name},
          {"train_bytes", text.train_bytes},
          {"heldout_bytes", text.heldout_bytes},
          {"train_tokens", text.train.size()},
          {"heldout_tokens", text.heldout.size()},
          {"eval_tokens", windows.size() * base.shape.context},
          {"bytes_per_token", text.bytes_per_token()},
          {"vocabulary", text.pieces.size()}};
}

nlohmann::json describe_model(const run_config& base) {
  return {{"d_model", base.shape.d_model}, {"blocks", base.shape.blocks},
          {"heads", base.shape.heads},     {"context", base.shape.context},
          {"batch", base.how.batch},       {"parameters_without_experts", parameters_without_experts(base.shape)}};
}

nlohmann::json compare(const comparison& wanted, const corpus& text) {
  validate(wanted.base, text);
  for (const auto& v : wanted.variants) { // a mistake shows now, not hours later
    make_feed_forwards<float>(v, wanted.base.shape, 1, 1);
    if (wanted.group != nullptr)
      require_divisible<float>(v);
  }
  std::vector<variant> variants = wanted.variants;
  finished_runs finished;
  const auto results = [&] { return describe(wanted, text, variants, finished); };

  // All variants with the first seed, then with the second: an early look at results.json shows all of them.
  const auto train = [&](std::size_t first, std::size_t last) {
    std::size_t most = 0;
    for (std::size_t i = first; i < last; ++i)
      most = std::max(most, variants[i].runs);
    for (std::size_t seed = 1; seed <= most; ++seed) {
      for (std::size_t i = first; i < last; ++i) {
        if (seed > variants[i].runs)
          continue;
        run_config config = wanted.base;
        config.what = variants[i];
        config.seed = wanted.base.seed + seed - 1;
        const auto done = run(config, text, run_files(wanted.folder / "runs", config), wanted.threads, wanted.group);
        if (!done)
          return false;
        auto& runs = finished[variants[i].name];
        if (runs.is_null())
          runs = nlohmann::json::array();
        runs.push_back(*done);
        if (wanted.group == nullptr || wanted.group->rank() == 0)
          write_file(wanted.folder / "results.json", dump(results()));
      }
    }
    return true;
  };

  bool complete = train(0, variants.size());
  if (complete && wanted.add_controls) {
    const std::size_t first = variants.size();
    const auto more = missing_controls(variants, finished);
    variants.insert(variants.end(), more.begin(), more.end());
    complete = train(first, variants.size());
  }
  nlohmann::json all = results();
  all["interrupted"] = !complete;
  return all;
}

} // namespace language_model
