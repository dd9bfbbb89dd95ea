// SPDX-License-Identifier: MIT
// Layers on the device in every form that is measured.
#include <hmoe/backends/cuda/cublas.cuh>
#include <hmoe/backends/cuda/layer.cuh>

#include "device_runner.hpp"

#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace benchmarks {
namespace {

using namespace hmoe;
using backends::cublas_products;
using backends::cuda_context;

template <class Layer, class S, class W> class layer_runner final : public device_runner {
public:
  layer_runner(const cuda_context& gpu, const Layer& host, device_subject subject)
      : gpu_(gpu), subject_(subject), layer_(backends::copy_to<S, W>(gpu, host)) {}

  void set_input(matrix_view<const float> x) override {
    matrix<S> narrow(x.rows(), x.cols());
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c)
        narrow(r, c) = static_cast<S>(x(r, c));
    x_.assign(gpu_.executor(), narrow.view());
    y_.resize_for_overwrite(x.rows(), x.cols());
    if constexpr (std::same_as<S, W>) {
      if (subject_ == device_subject::training_step) {
        dx_.resize_for_overwrite(x.rows(), x.cols());
        training_.emplace(
            training{layer_.make_tape(x.rows()), layer_.make_gradients(gpu_), backends::cuda_adamw(gpu_, {}, layer_)});
      } else if (subject_ != device_subject::hmoe) {
        products_.emplace(gpu_, subject_ == device_subject::cublas_grouped ? backends::cublas_calls::grouped
                                                                           : backends::cublas_calls::per_expert);
      }
    }
    gpu_.synchronize();
  }
  void run() override {
    const auto x = std::as_const(x_).view();
    if constexpr (std::same_as<S, W>) {
      if (training_) {
        training_->gradients.set_zero(gpu_.executor());
        layer_.forward(gpu_, x, y_, training_->tape);
        layer_.backward(gpu_, training_->tape, std::as_const(y_), dx_, training_->gradients);
        training_->optimizer.step(gpu_, layer_, training_->gradients, /*learning_rate=*/0);
        return;
      }
      if (products_) {
        layer_.forward_with(gpu_, x, y_, *products_);
        return;
      }
    }
    layer_.forward(gpu_, x, y_);
  }
  [[nodiscard]] matrix<float> result() override {
    matrix<S> narrow(y_.rows(), y_.cols());
    y_.read(gpu_.executor(), narrow.view());
    layer_.check(gpu_);
    matrix<float> y(y_.rows(), y_.cols());
    for (std::size_t i = 0; i < y.size(); ++i)
      y.data()[i] = static_cast<float>(narrow.data()[i]);
    return y;
  }

private:
  struct training {
    backends::cuda_tape<S> tape;
    backends::cuda_gradients gradients;
    backends::cuda_adamw optimizer;
  };

  const cuda_context& gpu_;
  device_subject subject_;
  backends::cuda_layer_of<Layer, S, W> layer_;
  backends::device_matrix<S> x_, y_, dx_;
  std::optional<cublas_products<S>> products_;
  std::optional<training> training_;
};

template <class S, class W = S>
std::unique_ptr<device_runner> make(const cuda_context& gpu, const any_layer& layer, device_subject subject) {
  if (!std::same_as<S, W> && subject != device_subject::hmoe)
    return nullptr;
  return std::visit(
      [&](const auto& host) -> std::unique_ptr<device_runner> {
        using host_type = std::remove_cvref_t<decltype(host)>;
        if constexpr (std::same_as<S, W> || std::same_as<host_type, top_k_layer>)
          return std::make_unique<layer_runner<host_type, S, W>>(gpu, host, subject);
        else
          return nullptr;
      },
      layer);
}

} // namespace

std::unique_ptr<device_runner> make_device_runner(const cuda_context& gpu, const any_layer& layer, device_type type,
                                                  device_subject subject) {
  switch (type) {
  case device_type::f32:
  case device_type::tf32: // the context says which
    return make<float>(gpu, layer, subject);
  case device_type::bf16:
    return make<bfloat16>(gpu, layer, subject);
  case device_type::q8:
    return make<bfloat16, q8_block>(gpu, layer, subject);
  case device_type::q4:
    return make<bfloat16, q4_block>(gpu, layer, subject);
  case device_type::mxfp4:
    return make<bfloat16, mxfp4_block>(gpu, layer, subject);
  }
  return nullptr;
}

/// Numbers in [−1, 1) that have no pattern.
template <class V> __global__ void fill_uniform(V* values, std::size_t count) {
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += threads) {
    auto bits = static_cast<std::uint32_t>(i) * 0x9e3779b9U;
    bits = (bits ^ bits >> 16U) * 0x85ebca6bU;
    bits = (bits ^ bits >> 13U) * 0xc2b2ae35U;
    values[i] = static_cast<V>(static_cast<float>(bits >> 8U) * 0x1p-23F - 1.0F);
  }
}

double dense_flops(const cuda_context& gpu, device_type type) {
  constexpr int n = 8192;
  const bool is_float = type == device_type::f32 || type == device_type::tf32;
  const auto value = is_float ? CUDA_R_32F : CUDA_R_16BF;
  const auto arithmetic = type == device_type::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  backends::device_buffer<std::byte> operands(std::size_t{3} * n * n * (is_float ? 4 : 2));
  const auto fill = [&]<class V>(V* values) { // products of zeros draw less power, and run faster than any of data
    backends::cuda_detail::launch{"fill_uniform", gpu.stream(), 1024, 256}(fill_uniform<V>, values,
                                                                           operands.size() / sizeof(V));
  };
  if (is_float)
    fill(reinterpret_cast<float*>(operands.data()));
  else
    fill(reinterpret_cast<bfloat16*>(operands.data()));
  std::byte *const a = operands.data(), *const b = a + operands.size() / 3, *const c = b + operands.size() / 3;
  cublasHandle_t handle = nullptr;
  backends::cuda_detail::require_cublas(cublasCreate(&handle), "cublasCreate");
  backends::cuda_detail::require_cublas(cublasSetStream(handle, gpu.stream()), "cublasSetStream");
  const float one = 1, zero = 0;
  const auto multiply = [&] {
    backends::cuda_detail::require_cublas(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, value, n, b,
                                                       value, n, &zero, c, value, n, arithmetic, CUBLAS_GEMM_DEFAULT),
                                          "cublasGemmEx");
  };
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  multiply();
  cudaEventRecord(begin, gpu.stream());
  constexpr int rounds = 10;
  for (int i = 0; i < rounds; ++i)
    multiply();
  cudaEventRecord(end, gpu.stream());
  gpu.synchronize();
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  (void)cublasDestroy(handle);
  return rounds * 2.0 * n * n * n / (static_cast<double>(milliseconds) * 1e-3);
}

} // namespace benchmarks
