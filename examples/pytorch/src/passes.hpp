// SPDX-License-Identifier: MIT
// What the module and the kernels of every instruction set share (docs/isa.md): it means the same under all flags.
#pragma once

#include <hmoe/backends/isa.hpp>
#include <hmoe/execution/workspace.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace hmoe::python {

/// Types of tensors. Sums of bfloat16 tensors are float.
enum class scalar { float32, float64, bfloat16 };
[[nodiscard]] constexpr std::size_t bytes_of(scalar type) noexcept {
  return type == scalar::float64 ? 8 : type == scalar::float32 ? 4 : 2;
}

/// What stands between the projections: an activation; or, of gated experts, gpt-oss' product (experts::gpt_oss_gate),
/// min(silu(g), limit) · u with u clamped, or c tanh(g / c) · σ(g) · c' tanh(u / c') with c = limit and c' = alpha.
enum class step { silu, gelu, gelu_tanh, relu, squared_relu, linear, gpt_oss, silu_then_limit, softcapped };

/// An expert's weights where they are: row-major, in the bank's type. Gradients have the same form.
struct expert_memory {
  std::size_t width = 0;
  std::array<void*, 2> lanes{};       ///< gate and up, or up alone: [width × d_model], rows lane_stride values apart
  void* output = nullptr;             ///< [d_model × width], rows `output_stride` values apart
  std::array<void*, 2> lane_biases{}; ///< [width] each, or null
  void* output_bias = nullptr;        ///< [d_model], or null
  std::size_t lane_stride = 0, output_stride = 0;
};

/// Experts of one kind. y = W_out a + b_out with a = step(W_gate x + b_gate) ⊙ (W_up x + b_up), or step(W_up x + b_up)
/// where they are not gated. A finite limit clamps the gate from above and up to ± limit before that.
struct bank_memory {
  scalar type = scalar::float32;
  std::size_t d_model = 0;
  bool gated = true, biased = false;
  step function = step::silu;
  double limit = std::numeric_limits<double>::infinity(), alpha = 1.702;
  /// Matrices lie transposed: the input's as one [d_model × lanes · width], with its lanes one behind the other or,
  /// interleaved, in turn; the output's as [width × d_model]. Passes with gradients of takes_transposed() types know
  /// it.
  bool transposed = false, interleaved = false;
  std::vector<expert_memory> experts;
};

/// Tasks on several threads (hmoe::executor), behind one virtual function.
class workers {
public:
  virtual ~workers() = default;
  using call = void (*)(void* task, std::size_t i, std::size_t worker);
  virtual void run(std::size_t count, void* task, call of) const = 0;
  [[nodiscard]] virtual std::size_t concurrency() const noexcept = 0;
};

/// Tokens and their experts. Ids that are no expert of the bank are skipped; a token may name an expert twice.
struct batch {
  std::size_t tokens = 0, choices = 0;
  const std::int64_t* ids = nullptr; ///< [tokens × choices]
  const void* weights = nullptr;     ///< [tokens × choices], float, or double for banks of double
  const void* x = nullptr;           ///< [tokens × d_model] in the bank's type
};

/// y_t = Σ_i weights(t, i) · expert_{ids(t, i)}(x_t). With `record` it writes `saved` and `outputs`, which backward
/// takes again: values of hidden layers, saved_values() of them at most, and [tokens · choices × d_model], float or
/// double. Either may be empty, at no address.
struct forward_pass {
  const bank_memory* bank = nullptr;
  batch in;
  bool record = false;
  void *y = nullptr, *saved = nullptr, *outputs = nullptr;
  const workers* threads = nullptr;
  workspace* scratch = nullptr;
};

/// dx, d_weights and gradients are written. What is null, these or tensors of `gradients`, is not computed.
struct backward_pass {
  const bank_memory* bank = nullptr;
  batch in;
  const void *dy = nullptr, *saved = nullptr, *outputs = nullptr;
  void *dx = nullptr, *d_weights = nullptr;
  const bank_memory* gradients = nullptr;
  const workers* threads = nullptr;
  workspace* scratch = nullptr;
};

/// Weights in the order in which the kernels of this instruction set read them, for inference with float sums.
class packed_bank {
public:
  virtual ~packed_bank() = default;
  /// As forward_pass, with x and y of type `type` and nothing kept.
  virtual void forward(const batch& in, scalar type, void* y, const workers& threads, workspace& scratch) const = 0;
  [[nodiscard]] virtual std::size_t bytes() const noexcept = 0;
};
enum class weight_format { f32, bf16, q8_channel, q4 };

} // namespace hmoe::python

HMOE_ISA_FUNCTION(forward_float, void(const hmoe::python::forward_pass& pass));
HMOE_ISA_FUNCTION(backward_float, void(const hmoe::python::backward_pass& pass));
HMOE_ISA_FUNCTION(forward_double, void(const hmoe::python::forward_pass& pass));
HMOE_ISA_FUNCTION(backward_double, void(const hmoe::python::backward_pass& pass));
HMOE_ISA_FUNCTION(pack_experts, std::unique_ptr<hmoe::python::packed_bank>(const hmoe::python::bank_memory& bank,
                                                                           hmoe::python::weight_format format));
