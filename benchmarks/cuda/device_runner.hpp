// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda.hpp>
#include <hmoe/core/matrix.hpp>

#include "support/layers.hpp"

#include <cstddef>
#include <memory>
#include <string_view>

namespace benchmarks {

/// How tokens and weights are stored on the device.
enum class device_type { f32, tf32, bf16, q8, q4, mxfp4 };

struct device_type_facts {
  device_type type;
  std::string_view name;
  double bytes_per_weight;
  double tolerance; ///< of the error of y against hmoe's f32 layer on the host, both as norms
};
inline constexpr device_type_facts device_types[] = {
    {device_type::f32, "f32", 4, 1e-4},         {device_type::tf32, "tf32", 4, 5e-3},
    {device_type::bf16, "bf16", 2, 2e-2},       {device_type::q8, "q8", 34.0 / 32, 3e-2},
    {device_type::q4, "q4", 18.0 / 32, 2.5e-1}, {device_type::mxfp4, "mxfp4", 17.0 / 32, 3e-1}};

/// What is timed.
enum class device_subject {
  hmoe,              ///< the forward pass
  cublas_per_expert, ///< the same with cublasGemmEx for each expert: the host waits for the plan
  cublas_grouped,    ///< the same with cublasGemmGroupedBatchedEx: the host waits for the plan
  training_step      ///< forward with a tape, backward, AdamW
};
inline constexpr std::string_view device_subject_names[] = {"hmoe", "cublas_per_expert", "cublas_grouped",
                                                            "training_step"};

/// A layer on the device, with an input.
class device_runner {
public:
  virtual ~device_runner() = default;
  virtual void set_input(hmoe::matrix_view<const float> x) = 0;
  /// Queues one pass.
  virtual void run() = 0;
  /// y of the last pass; waits.
  [[nodiscard]] virtual hmoe::matrix<float> result() = 0;
};

/// nullptr where the subject does not take the type or the layer.
std::unique_ptr<device_runner> make_device_runner(const hmoe::backends::cuda_context& gpu, const any_layer& layer,
                                                  device_type type, device_subject subject);

/// FLOP/s of a product of 8192 × 8192 matrices by cuBLAS: the yardstick of arithmetic.
double dense_flops(const hmoe::backends::cuda_context& gpu, device_type type);

} // namespace benchmarks
