// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/openmp.hpp>

#include "hmoe.hpp"
#include "subject.hpp"

#include <cstddef>
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
    layers_.push_back(std::visit([](const auto& layer) -> any_packed { return pack(layer); }, weights.layer(0)));
    // The fewer bytes a weight has, the more copies it takes to fill the caches. All copies of the model are equal, and
    // packing them takes longer than copying.
    const std::size_t count = weights.cold_copies(bytes_of(layers_[0]));
    layers_.reserve(count);
    while (layers_.size() < count)
      layers_.push_back(layers_[0]);
  }

  void set_threads(std::size_t threads) override {
    plain_.set_threads(threads);
    cpu_.emplace(hmoe::backends::simd<>{}, hmoe::executors::openmp{threads});
  }
  [[nodiscard]] std::size_t copies() const override { return layers_.size(); }
  void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) override {
    std::visit([&](const auto& layer) { layer.forward(*cpu_, input.x.view(), y); }, layers_[copy]);
  }
  [[nodiscard]] bool routes() const override { return true; }
  void route(std::size_t copy, const batch& input) override { plain_.route(copy % plain_.copies(), input); }

private:
  template <class Layer> static auto pack(const Layer& layer) {
    return hmoe::moe_layer{hmoe::backends::simd<>::pack<Format>(layer.experts()), layer.router(),
                           hmoe::dispatch::scattered{}};
  }
  template <class Layer> using packed = decltype(pack(std::declval<const Layer&>()));
  using any_packed = std::variant<packed<top_k_layer>, packed<top_p_layer>, packed<mixed_layer>>;

  static double bytes_of(const any_packed& packed_layer) {
    double bytes = 0;
    for (const auto& expert : std::visit([](const auto& layer) { return layer.cost(); }, packed_layer).experts)
      bytes += static_cast<double>(expert.bytes);
    return bytes;
  }

  hmoe_runner<hmoe::backends::simd<>> plain_;
  std::vector<any_packed> layers_;
  std::optional<hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>> cpu_;
};

} // namespace benchmarks
