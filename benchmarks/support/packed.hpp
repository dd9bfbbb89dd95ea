// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/openmp.hpp>

#include "hmoe.hpp"
#include "subject.hpp"

#include <optional>
#include <utility>
#include <variant>
#include <vector>

namespace benchmarks {

/// The inference form of the model's layers: experts packed as Format says, tokens gathered and combined in the
/// kernels. Routes like hmoe_runner, whose route() it has.
template <class Format> class packed_runner final : public runner {
public:
  explicit packed_runner(const model& weights) : plain_(weights) {
    for (std::size_t copy = 0; copy < weights.copy_count(); ++copy)
      layers_.push_back(std::visit([](const auto& layer) -> any_packed { return pack(layer); }, weights.layer(copy)));
  }

  void set_threads(std::size_t threads) override {
    plain_.set_threads(threads);
    cpu_.emplace(hmoe::backends::simd<>{}, hmoe::executors::openmp{threads});
  }
  void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) override {
    std::visit([&](const auto& layer) { layer.forward(*cpu_, input.x.view(), y); }, layers_[copy]);
  }
  [[nodiscard]] bool routes() const override { return true; }
  void route(std::size_t copy, const batch& input) override { plain_.route(copy, input); }

private:
  template <class Layer> static auto pack(const Layer& layer) {
    return hmoe::moe_layer{hmoe::backends::simd<>::pack<Format>(layer.experts()), layer.router(),
                           hmoe::dispatch::scattered{}};
  }
  template <class Layer> using packed = decltype(pack(std::declval<const Layer&>()));
  using any_packed = std::variant<packed<top_k_layer>, packed<top_p_layer>, packed<mixed_layer>>;

  hmoe_runner<hmoe::backends::simd<>> plain_;
  std::vector<any_packed> layers_;
  std::optional<hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>> cpu_;
};

} // namespace benchmarks
