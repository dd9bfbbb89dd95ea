// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/gradients.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/training/adamw.hpp>
#include <hmoe/training/sgd.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace hmoe::backends {

namespace cuda_detail {

enum class optimizer_kind { adamw, sgd };

/// The numbers of one step, the same for every parameter (see hmoe/training/).
struct optimizer_step {
  optimizer_kind kind;
  float beta1, beta2;         ///< sgd: beta1 is the momentum
  float rate, root_scale;     ///< η over 1 − β₁ᵗ, and 1/√(1 − β₂ᵗ); sgd: η
  float epsilon, keep, decay; ///< keep: 1 − ηλ of AdamW; decay: λ of sgd
};

/// What an optimiser keeps for a layer's parameters, one after the other: moments, and for 16-bit weights the values in
/// float, which the stored ones are rounded from.
struct optimizer_memory {
  device_buffer<float> first, second, values;
  bool fresh = true; ///< no step yet
};

/// Trained elements of a layer, padding of rows included.
template <class Layer> [[nodiscard]] std::size_t trained_elements(const Layer& layer) {
  std::size_t sum = 0;
  for (const auto& tensor : layer.tensors())
    sum += tensor.size;
  return sum;
}

template <class Layer>
[[nodiscard]] optimizer_memory make_memory(const cuda_context& ctx, const Layer& layer, bool second) {
  optimizer_memory memory;
  const std::size_t count = trained_elements(layer);
  memory.first.resize_for_overwrite(count);
  memory.first.set_zero(ctx.executor());
  if (second) {
    memory.second.resize_for_overwrite(count);
    memory.second.set_zero(ctx.executor());
  }
  if (!std::same_as<typename Layer::value_type, float>)
    memory.values.resize_for_overwrite(count); // the first step fills them
  return memory;
}

} // namespace cuda_detail

/// training::adamw over the parameters of a device layer, without leaving the device. With 16-bit weights it keeps them
/// in float too. 8 bytes per parameter, 12 with 16-bit weights.
class cuda_adamw {
public:
  template <class Layer>
  cuda_adamw(const cuda_context& ctx, const training::adamw_options& options, const Layer& layer)
      : options_(options), memory_(cuda_detail::make_memory(ctx, layer, true)) {
    require(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
            "AdamW needs betas in [0, 1), given are ", options.beta1, " and ", options.beta2);
    require(options.epsilon > 0, "AdamW needs epsilon > 0, given is ", options.epsilon);
  }
  /// One update with learning rate η, in the order of the stream.
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients, double learning_rate) {
    ++steps_;
    const auto count = static_cast<double>(steps_);
    layer.step(ctx,
               {.kind = cuda_detail::optimizer_kind::adamw,
                .beta1 = static_cast<float>(options_.beta1),
                .beta2 = static_cast<float>(options_.beta2),
                .rate = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, count))),
                .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, count))),
                .epsilon = static_cast<float>(options_.epsilon),
                .keep = static_cast<float>(1 - learning_rate * options_.weight_decay),
                .decay = 0},
               memory_, gradients);
  }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

private:
  training::adamw_options options_;
  std::uint64_t steps_ = 0;
  cuda_detail::optimizer_memory memory_;
};

/// training::sgd over the parameters of a device layer. 4 bytes per parameter, 8 with 16-bit weights.
class cuda_sgd {
public:
  template <class Layer>
  cuda_sgd(const cuda_context& ctx, const training::sgd_options& options, const Layer& layer)
      : options_(options), memory_(cuda_detail::make_memory(ctx, layer, false)) {
    require(options.momentum >= 0 && options.momentum < 1, "SGD needs a momentum in [0, 1), given is ",
            options.momentum);
  }
  /// One update with learning rate η, in the order of the stream.
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients, double learning_rate) {
    layer.step(ctx,
               {.kind = cuda_detail::optimizer_kind::sgd,
                .beta1 = static_cast<float>(options_.momentum),
                .beta2 = 0,
                .rate = static_cast<float>(learning_rate),
                .root_scale = 0,
                .epsilon = 0,
                .keep = 1,
                .decay = static_cast<float>(options_.weight_decay)},
               memory_, gradients);
  }

private:
  training::sgd_options options_;
  cuda_detail::optimizer_memory memory_;
};

} // namespace hmoe::backends
