// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/measure_machine.hpp>
#include <hmoe/dispatch/tune.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/io/tuned_table.hpp>

#include "../support/machine.hpp"
#include "any_experts.hpp"
#include "any_strategy.hpp"
#include "loads.hpp"
#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace benchmarks {

/// The experts at hand, in copies, what the machine does with them, and which strategies are quickest where: for one
/// shape and format at a time.
class dispatch_workshop {
public:
  /// Limits and tables take a share each of the seconds for a point, but no longer than they need.
  explicit dispatch_workshop(double of_point) : seconds_(of_point) {}

  const std::vector<std::unique_ptr<any_experts>>& take(const dispatch_shape& shape, const std::string& format) {
    if (shape.name == shape_.name && format == format_)
      return copies_;
    copies_.clear();
    limits_.clear();
    tables_.clear();
    shape_ = shape;
    format_ = format;
    copies_.push_back(format == "f32" ? make_plain_experts(shape) : make_packed_experts(shape, format));
    double bytes = 0;
    for (std::size_t e = 0; e < copies_[0]->size(); ++e)
      bytes += static_cast<double>(copies_[0]->bytes(e));
    // Two last-level caches of weights between two uses of those of a token.
    const double share = static_cast<double>(shape.k) / static_cast<double>(shape.experts());
    const double count = std::ceil(2 * static_cast<double>(hmoe::last_cache_bytes()) / (share * bytes));
    const double room = 0.5 * static_cast<double>(available_memory()) / bytes;
    while (static_cast<double>(copies_.size()) < std::min({count, room, 64.0}))
      copies_.push_back(copies_[0]->copy());
    return copies_;
  }
  const hmoe::dispatch::machine_limits& limits(std::size_t threads) {
    auto [found, fresh] = limits_.try_emplace(threads);
    if (fresh) {
      const dispatch_context ctx({}, hmoe::executors::openmp{threads}, switched_stages{});
      found->second = hmoe::dispatch::measure_machine(ctx, *copies_[0], std::min(1.5, 0.6 * seconds_));
      if (copies_.size() > 1)
        found->second.cache_bytes = 0;
    }
    return found->second;
  }
  /// What dispatch::tune finds, but on cold weights: the quickest strategies for some even and some skewed batches.
  const hmoe::dispatch::tuned_table& table(std::size_t threads, bool training) {
    auto [found, fresh] = tables_.try_emplace({threads, training});
    if (fresh) {
      const dispatch_context ctx({}, hmoe::executors::openmp{threads}, switched_stages{});
      found->second = {hmoe::io::cpu_name(), hmoe::dispatch::shape_of(ctx, *copies_[0]), {}};
      for (const std::size_t tokens : {1U, 4U, 16U, 64U, 256U})
        for (const std::string_view load : {"zipf_1.5", "uniform"})
          if (!training || tokens == 64)
            add_choice(ctx, make_load(load, tokens, shape_.experts(), shape_.k, 7), training, found->second);
    }
    return found->second;
  }

private:
  void add_choice(const dispatch_context& ctx, hmoe::assignment<float> assigned, bool training,
                  hmoe::dispatch::tuned_table& to) {
    using namespace hmoe::dispatch;
    const std::size_t tokens = assigned.tokens(), d = shape_.d_model;
    std::vector<expert_work> work(copies_[0]->size());
    const double spread = effective_experts(
        load_of(ctx, *copies_[0], assigned, false, hmoe::vector_view<expert_work>(work.data(), work.size())));
    if (!to.choices.empty() && to.choices.back().tokens == tokens && spread < 1.1 * to.choices.back().effective_experts)
      return; // a load like this one is known
    const std::vector<hmoe::assignment<float>> one{std::move(assigned)};
    const dispatch_batch batch{copies_, one, tokens, ctx.executor().concurrency(), training};
    hmoe::matrix<float> x(tokens, d), y(tokens, d), dx(tokens, d);
    hmoe::fill_normal(hmoe::vector_view<float>(x.data(), x.size()), 1.0, hmoe::seed{1}, tokens);
    const std::unique_ptr<any_experts> gradients = training ? copies_[0]->copy() : nullptr;
    hmoe::tape<float> recording;
    std::map<strategy, named_strategy> named;
    std::map<strategy, detail::dispatch_turn> turns; // each with memory of its own
    std::size_t copy = 0;
    const strategy quickest = quickest_measured(to.shape, std::min(0.2, 0.08 * seconds_), [&](const automatic& by) {
      const strategy which = by.table().choices[0].inference;
      const named_strategy& known = named.try_emplace(which, make_strategy("tuning", by)).first->second;
      return turns.try_emplace(which, known, batch)
          .first->second.run(copy++ % copies_.size(), 0, x, y, dx, gradients.get(), recording, nullptr);
    });
    to.choices.push_back({tokens, spread, quickest, quickest});
  }

  double seconds_;
  dispatch_shape shape_;
  std::string format_;
  std::vector<std::unique_ptr<any_experts>> copies_;
  std::map<std::size_t, hmoe::dispatch::machine_limits> limits_;
  std::map<std::pair<std::size_t, bool>, hmoe::dispatch::tuned_table> tables_; ///< by threads and training
};

} // namespace benchmarks
