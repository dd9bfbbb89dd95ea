// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/device.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/device_weight.hpp>
#include <hmoe/backends/cuda/epilogue.cuh>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/memory.hpp>

#include <cublas_v2.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

/// cuBLAS in place of hmoe's own products, as a baseline to compare with (cuda_layer::forward_with). Everything else is
/// the same: router, plan, activation, combine. Additional costs: cuBLAS takes the numbers of rows from the host,
/// so the offsets are copied there and the host waits; rows are gathered in a pass of their own, and so is the
/// activation: one launch of each for all experts. Products of 16-bit values that write float outputs do so
/// (cublasGemmEx); the grouped product writes the type that it reads, so its outputs are widened in a pass of their
/// own. Inference without biases and quantised weights; link CUDA::cublas.
namespace hmoe::backends {

enum class cublas_calls {
  per_expert, ///< cublasGemmEx for each expert that has rows
  grouped     ///< one cublasGemmGroupedBatchedEx for all of them (cuBLAS 12.5 or later)
};

namespace cuda_detail {

inline void require_cublas(cublasStatus_t status, const char* call) {
  require(status == CUBLAS_STATUS_SUCCESS, "cuBLAS: ", call, ": ", cublasGetStatusString(status));
}

template <class S>
inline constexpr cudaDataType_t cublas_type = std::same_as<S, float>      ? CUDA_R_32F
                                              : std::same_as<S, bfloat16> ? CUDA_R_16BF
                                                                          : CUDA_R_16F;

/// What a thread moves at once: 16 bytes where rows allow it, else a value.
template <class S, int Count> struct alignas(sizeof(S) * Count) packet_of {
  static constexpr index_t count = Count;
  S values[Count];
};
template <class S> using whole_packet = packet_of<S, static_cast<int>(16 / sizeof(S))>;

/// to[slot] = the row that a slot reads, for the slots of experts first … end − 1.
template <class Packet, class S>
__global__ void __launch_bounds__(256) gather_rows_kernel(plan_arrays plan, index_t first, index_t end, row_source<S> x,
                                                          S* to, std::size_t to_stride, index_t d) {
  for (index_t slot = plan.offsets[first] + blockIdx.x; slot < plan.offsets[end]; slot += gridDim.x) {
    const std::size_t row = x.index == nullptr ? slot : x.index[slot];
    for (index_t c = threadIdx.x * Packet::count; c < d; c += blockDim.x * Packet::count)
      *reinterpret_cast<Packet*>(to + slot * to_stride + c) =
          *reinterpret_cast<const Packet*>(x.rows + row * x.stride + c);
  }
}

/// activated = gate(projected) in a row of an expert of that width.
template <std::size_t Lanes, class Packet, class S, class Gate>
__device__ void activate_row(const S* projected, S* activated, index_t width, const Gate& gate) {
  for (index_t column = threadIdx.x * Packet::count; column < width; column += blockDim.x * Packet::count) {
    const auto first = *reinterpret_cast<const Packet*>(projected + column);
    const auto second = *reinterpret_cast<const Packet*>(projected + (Lanes - 1) * std::size_t{width} + column);
    Packet result;
#pragma unroll
    for (index_t i = 0; i < Packet::count; ++i) {
      if constexpr (Lanes == 2)
        result.values[i] = static_cast<S>(gate.value(to_float(first.values[i]), to_float(second.values[i])));
      else
        result.values[i] = static_cast<S>(gate.value(to_float(first.values[i])));
    }
    *reinterpret_cast<Packet*>(activated + column) = result;
  }
}

/// The same for the rows of all experts of a bank. `offsets`: of the plan, from its first expert on.
template <std::size_t Lanes, class S, class Gate>
__global__ void __launch_bounds__(256)
    activate_rows_kernel(const index_t* offsets, const index_t* widths, index_t experts, const S* projected,
                         S* activated, std::size_t stride, Gate gate) {
  index_t e = 0;
  for (index_t slot = offsets[0] + blockIdx.x; slot < offsets[experts]; slot += gridDim.x) {
    while (slot >= offsets[e + 1])
      ++e;
    const S* const from = projected + std::size_t{slot} * Lanes * stride; // rows are multiples of 16 bytes apart
    S* const to = activated + std::size_t{slot} * stride;
    const auto end = epilogue_of<S>(gate);
    if (widths[e] % whole_packet<S>::count == 0)
      activate_row<Lanes, whole_packet<S>>(from, to, widths[e], end);
    else
      activate_row<Lanes, packet_of<S, 1>>(from, to, widths[e], end);
  }
}

/// to = from in float.
template <class S> __global__ void __launch_bounds__(256) widen_kernel(const S* from, float* to, std::size_t count) {
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += threads)
    to[i] = to_float(from[i]);
}

} // namespace cuda_detail

template <class S> class cublas_products {
public:
  cublas_products(const cuda_context& ctx, cublas_calls calls) : calls_(calls) {
    const cuda_detail::device_guard guard(ctx.device());
    cublasHandle_t made = nullptr;
    cuda_detail::require_cublas(cublasCreate(&made), "cublasCreate");
    handle_ = {made, [](cublasHandle_t handle) { (void)cublasDestroy(handle); }};
    cuda_detail::require_cublas(cublasSetStream(made, ctx.stream()), "cublasSetStream");
  }

  /// outputs[slot] = expert(x[slot]) for one bank; waits for the plan.
  template <class Bank>
  void operator()(const cuda_context& ctx, const cuda_detail::launch_target& target,
                  const cuda_detail::plan_arrays& plan, const Bank& bank, std::size_t first_expert,
                  const cuda_detail::ffn_forward_arrays<S>& pass, std::byte*) {
    using kind = typename Bank::kind;
    const auto& layout = bank.layout();
    const auto weights = bank.arrays(first_expert);
    static_assert(std::same_as<decltype(weights), const cuda_detail::ffn_arrays<S>>,
                  "hmoe::backends::cublas_products: cuBLAS does not read quantised weights: copy the layer with "
                  "copy_to<S>");
    require(!layout.has_biases() && !kind::residual, "cublas_products is for experts without biases and residuals");
    const std::size_t d = layout.d_model(), row = layout.in_stride(), hidden = pass.hidden_stride;
    const std::size_t capacity = plan.capacity;
    const auto blocks = static_cast<unsigned>(8 * target.multiprocessors);
    rows_.resize_for_overwrite(capacity * row);
    projected_.resize_for_overwrite(capacity * kind::lanes * hidden);
    const bool widens = calls_ == cublas_calls::grouped && !std::same_as<S, float>;
    results_.resize_for_overwrite(widens ? capacity * d : 0);
    const cuda_detail::launch gather{"gather_rows", ctx.stream(), blocks, 256};
    const auto copy_rows = [&](auto kernel) {
      gather(kernel, plan, static_cast<index_t>(first_expert), static_cast<index_t>(first_expert + layout.size()),
             pass.x, rows_.data(), row, static_cast<index_t>(d));
    };
    using packet = cuda_detail::whole_packet<S>;
    const bool whole = d % packet::count == 0 && pass.x.stride % packet::count == 0 &&
                       reinterpret_cast<std::uintptr_t>(pass.x.rows) % sizeof(packet) == 0;
    if (whole)
      copy_rows(cuda_detail::gather_rows_kernel<packet, S>);
    else
      copy_rows(cuda_detail::gather_rows_kernel<cuda_detail::packet_of<S, 1>, S>);

    std::vector<index_t> offsets(layout.size() + 1);
    cuda_detail::require_cuda(cudaMemcpyAsync(offsets.data(), plan.offsets + first_expert,
                                              offsets.size() * sizeof(index_t), cudaMemcpyDeviceToHost, ctx.stream()),
                              "copying the plan's offsets");
    ctx.synchronize();
    std::vector<product> in, out;
    for (std::size_t e = 0; e < layout.size(); ++e) {
      const std::size_t first = offsets[e], count = offsets[e + 1] - first, h = layout[e].width;
      if (count == 0)
        continue;
      in.push_back({weights.in + layout[e].in, row, rows_.data() + first * row, row,
                    projected_.data() + first * kind::lanes * hidden, kind::lanes * hidden, kind::lanes * h, count, d});
      out.push_back({weights.out + layout[e].out, layout[e].out_stride, pass.activated + first * hidden, hidden,
                     widens ? static_cast<void*>(results_.data() + first * d) : pass.outputs + first * d, d, d, count,
                     h});
    }
    if (in.empty())
      return;
    if (calls_ == cublas_calls::grouped)
      copy_pointers(ctx, in, out);
    const auto type = cuda_detail::cublas_type<S>;
    multiply(ctx, in, type, 0);
    cuda_detail::launch{"activate_rows", ctx.stream(), blocks, 256}(
        cuda_detail::activate_rows_kernel<kind::lanes, S, typename kind::gate_type>, plan.offsets + first_expert,
        weights.widths, static_cast<index_t>(layout.size()), projected_.data(), pass.activated, hidden, bank.gate());
    multiply(ctx, out, widens ? type : CUDA_R_32F, 3 * in.size());
    if (widens) {
      const std::size_t first = offsets.front() * d, count = (offsets.back() - offsets.front()) * d;
      cuda_detail::launch{"widen", ctx.stream(), blocks, 256}(cuda_detail::widen_kernel<S>, results_.data() + first,
                                                              pass.outputs + first, count);
    }
  }

private:
  /// c[n × m] = b[n × k] · a[m × k]ᵀ, row-major; for cuBLAS, column-major, cᵀ = a · bᵀ.
  struct product {
    const S* a;
    std::size_t a_stride;
    const S* b;
    std::size_t b_stride;
    void* c;
    std::size_t c_stride, m, n, k;
  };

  /// Those to a, b and c of the products of `in`, then of `out`: one copy for both.
  void copy_pointers(const cuda_context& ctx, const std::vector<product>& in, const std::vector<product>& out) {
    std::vector<const void*> pointers;
    for (const auto* list : {&in, &out}) {
      for (const product& p : *list)
        pointers.push_back(p.a);
      for (const product& p : *list)
        pointers.push_back(p.b);
      for (const product& p : *list)
        pointers.push_back(p.c);
    }
    pointers_.assign(ctx.executor(), pointers);
  }

  /// `result`: the type of c. `first`: of the pointers to the grouped products.
  void multiply(const cuda_context& ctx, const std::vector<product>& list, cudaDataType_t result, std::size_t first) {
    const float one = 1, zero = 0;
    const auto type = cuda_detail::cublas_type<S>;
    const auto arithmetic = std::same_as<S, float> && ctx.backend().math == float_math::tf32
                                ? CUBLAS_COMPUTE_32F_FAST_TF32
                                : CUBLAS_COMPUTE_32F;
    if (calls_ == cublas_calls::per_expert) {
      for (const product& p : list)
        cuda_detail::require_cublas(cublasGemmEx(handle_.get(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(p.m), narrow(p.n),
                                                 narrow(p.k), &one, p.a, type, narrow(p.a_stride), p.b, type,
                                                 narrow(p.b_stride), &zero, p.c, result, narrow(p.c_stride), arithmetic,
                                                 CUBLAS_GEMM_DEFAULT),
                                    "cublasGemmEx");
      return;
    }
    const std::size_t groups = list.size();
    std::vector<cublasOperation_t> transposed(groups, CUBLAS_OP_T), plain(groups, CUBLAS_OP_N);
    std::vector<float> ones(groups, 1), zeros(groups, 0);
    std::vector<int> m, n, k, a_strides, b_strides, c_strides, sizes(groups, 1);
    for (const product& p : list) {
      m.push_back(narrow(p.m));
      n.push_back(narrow(p.n));
      k.push_back(narrow(p.k));
      a_strides.push_back(narrow(p.a_stride));
      b_strides.push_back(narrow(p.b_stride));
      c_strides.push_back(narrow(p.c_stride));
    }
    const void** const device = pointers_.data() + first;
    cuda_detail::require_cublas(
        cublasGemmGroupedBatchedEx(handle_.get(), transposed.data(), plain.data(), m.data(), n.data(), k.data(),
                                   ones.data(), device, type, a_strides.data(), device + groups, type, b_strides.data(),
                                   zeros.data(), const_cast<void**>(device + 2 * groups), result, c_strides.data(),
                                   narrow(groups), sizes.data(), arithmetic),
        "cublasGemmGroupedBatchedEx");
  }
  [[nodiscard]] static int narrow(std::size_t value) {
    require(value <= static_cast<std::size_t>(std::numeric_limits<int>::max()), "cuBLAS takes ", value, " as an int");
    return static_cast<int>(value);
  }

  cublas_calls calls_;
  std::shared_ptr<cublasContext> handle_;
  device_buffer<S> rows_, projected_, results_;
  device_buffer<const void*> pointers_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
