// SPDX-License-Identifier: MIT
// Passes over experts on a GPU as hmoe._cuda calls them: addresses of torch's memory, on torch's stream. Kernels come
// from device_experts.cu.
#pragma once

#include <hmoe/backends/cuda/experts_pass.hpp>

#include "../passes.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace hmoe::python {

/// Where a pass runs and the memory that it borrows, all on that device. The table is device_experts::table() there;
/// table and workspace begin at multiples of 256 bytes.
struct device_place {
  int device = 0;
  cudaStream_t stream = nullptr;
  const std::byte* table = nullptr;
  std::byte* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  bool tf32 = false; ///< products of float32 may be rounded to it
};

/// Tensors of all experts, in the order of an experts_layout: gates above up rows, not interleaved. Biases are float.
struct device_weights {
  const void *in = nullptr, *out = nullptr;
  const float *in_bias = nullptr, *out_bias = nullptr;
};
/// Gradients of these in float, which are added to; those that are null are not computed.
struct device_gradients {
  float *in = nullptr, *out = nullptr, *in_bias = nullptr, *out_bias = nullptr;
};
/// Contiguous rows of tokens, and their experts.
struct device_batch {
  std::size_t tokens = 0, choices = 0;
  const void* x = nullptr;           ///< [tokens × d_model]
  const std::int64_t* ids = nullptr; ///< [tokens × choices]
  const float* weights = nullptr;    ///< [tokens × choices]
};
/// What forward leaves for backward; both null: nothing.
struct device_kept {
  void* hidden = nullptr;   ///< hidden_values(tokens, choices) of the experts' type
  float* outputs = nullptr; ///< [tokens · choices × d_model]
};

/// Experts of one kind and shape, without their weights.
class device_experts {
public:
  struct options {
    scalar type = scalar::float32; ///< or bfloat16
    bool gated = true;
    step function = step::silu;
    double limit = std::numeric_limits<double>::infinity(), alpha = 1.702;
  };
  /// hmoe::error for what has no kernel.
  [[nodiscard]] static std::unique_ptr<device_experts> make(std::size_t d_model, const std::vector<std::size_t>& widths,
                                                            const options& how);
  virtual ~device_experts() = default;

  [[nodiscard]] const backends::experts_layout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::vector<std::byte> table() const { return layout_.table(); }
  [[nodiscard]] virtual std::size_t hidden_values(std::size_t tokens, std::size_t choices) const = 0;
  [[nodiscard]] virtual std::size_t forward_bytes(std::size_t tokens, std::size_t choices, bool keeps) const = 0;
  [[nodiscard]] virtual std::size_t backward_bytes(std::size_t tokens, std::size_t choices) const = 0;

  virtual void forward(const device_place& place, const device_weights& weights, const device_batch& in, void* y,
                       const device_kept& kept) const = 0;
  virtual void backward(const device_place& place, const device_weights& weights, const device_batch& in,
                        const void* dy, const device_kept& kept, void* dx, float* d_weights,
                        const device_gradients& gradients) const = 0;

protected:
  explicit device_experts(backends::experts_layout layout) : layout_(std::move(layout)) {}

private:
  backends::experts_layout layout_;
};

} // namespace hmoe::python
