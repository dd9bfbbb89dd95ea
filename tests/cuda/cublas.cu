// SPDX-License-Identifier: MIT
// cublas_products around a cuBLAS of loops on the host: what is gathered, where products read and write, and which of
// them there are. cuBLAS itself is not linked.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#if __has_include(<cublas_v2.h>)
#include <hmoe/backends/cuda/cublas.cuh>

#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

float value_of(const std::byte* values, cudaDataType_t type, std::size_t i) {
  if (type == CUDA_R_32F)
    return reinterpret_cast<const float*>(values)[i];
  return static_cast<float>(reinterpret_cast<const bfloat16*>(values)[i]);
}
std::vector<std::byte> on_host(const void* values, std::size_t count, cudaDataType_t type) {
  std::vector<std::byte> copy(count * (type == CUDA_R_32F ? 4 : 2));
  REQUIRE(cudaMemcpy(copy.data(), values, copy.size(), cudaMemcpyDeviceToHost) == cudaSuccess);
  return copy;
}

/// Column-major c = aᵀ b.
void product(int m, int n, int k, const void* a, int lda, const void* b, int ldb, cudaDataType_t type, void* c, int ldc,
             cudaDataType_t result) {
  const auto at = [](int column, int stride, int row) { return static_cast<std::size_t>(column) * stride + row; };
  const auto left = on_host(a, at(m - 1, lda, k), type), right = on_host(b, at(n - 1, ldb, k), type);
  for (int column = 0; column < n; ++column)
    for (int row = 0; row < m; ++row) {
      double sum = 0;
      for (int i = 0; i < k; ++i)
        sum += static_cast<double>(value_of(left.data(), type, at(row, lda, i))) *
               static_cast<double>(value_of(right.data(), type, at(column, ldb, i)));
      const auto wide = static_cast<float>(sum);
      const auto narrow = static_cast<bfloat16>(wide);
      auto* const to = static_cast<std::byte*>(c) + at(column, ldc, row) * (result == CUDA_R_32F ? 4 : 2);
      REQUIRE(cudaMemcpy(to, result == CUDA_R_32F ? static_cast<const void*>(&wide) : &narrow,
                         result == CUDA_R_32F ? 4 : 2, cudaMemcpyHostToDevice) == cudaSuccess);
    }
}

int single_calls = 0, grouped_calls = 0;

} // namespace

extern "C" {
// Weak: a tool that runs kernels on the CPU may have some of its own.
__attribute__((weak)) cublasStatus_t cublasCreate_v2(cublasHandle_t*) { return CUBLAS_STATUS_SUCCESS; }
__attribute__((weak)) cublasStatus_t cublasDestroy_v2(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }
const char* cublasGetStatusString(cublasStatus_t) { return "an error"; }

cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k, const void*,
                            const void* a, cudaDataType_t type, int lda, const void* b, cudaDataType_t, int ldb,
                            const void*, void* c, cudaDataType_t result, int ldc, cublasComputeType_t,
                            cublasGemmAlgo_t) {
  ++single_calls;
  product(m, n, k, a, lda, b, ldb, type, c, ldc, result);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t, const cublasOperation_t*, const cublasOperation_t*,
                                          const int* m, const int* n, const int* k, const void*, const void* const* a,
                                          cudaDataType_t type, const int* lda, const void* const* b, cudaDataType_t,
                                          const int* ldb, const void*, void* const* c, cudaDataType_t result,
                                          const int* ldc, int groups, const int* sizes, cublasComputeType_t) {
  ++grouped_calls;
  if (result != type) // as cuBLAS does
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto pointers = [&](const void* from) { // they lie on the device
    std::vector<void*> copy(static_cast<std::size_t>(groups));
    REQUIRE(cudaMemcpy(copy.data(), from, copy.size() * sizeof(void*), cudaMemcpyDeviceToHost) == cudaSuccess);
    return copy;
  };
  const auto left = pointers(a), right = pointers(b), to = pointers(c);
  for (int g = 0; g < groups; ++g) {
    CHECK(sizes[g] == 1);
    product(m[g], n[g], k[g], left[g], lda[g], right[g], ldb[g], type, to[g], ldc[g], result);
  }
  return CUBLAS_STATUS_SUCCESS;
}
}

namespace {

using glu = experts::glu_bank<float, experts::silu>;

template <class S> void check(std::size_t d, std::vector<std::size_t> widths, std::size_t tokens, double bound) {
  moe_layer host{expert_set{glu{d, widths}, experts::mlp_bank<float, experts::gelu>{d, {7}}},
                 routing::top_k_router<float>{d, widths.size() + 1, 2}};
  randomize<S>(host, 3);
  const matrix<float> x = random_tokens<S>(tokens, d, 4);
  matrix<float> y(tokens, d);
  host.forward(cpu, x, y);
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to<S>(gpu, host);
  const backends::device_matrix<S> device_x = to_device<S>(gpu, x);
  for (const auto calls : {backends::cublas_calls::per_expert, backends::cublas_calls::grouped}) {
    single_calls = grouped_calls = 0;
    backends::cublas_products<S> products(gpu, calls);
    backends::device_matrix<S> device_y(tokens, d);
    layer.forward_with(gpu, device_x.view(), device_y, products);
    layer.check(gpu);
    const matrix<float> result = to_host(gpu, device_y);
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      difference += std::pow(static_cast<double>(result.data()[i]) - static_cast<double>(y.data()[i]), 2);
      size += std::pow(static_cast<double>(y.data()[i]), 2);
    }
    CHECK(std::sqrt(difference / size) < bound);
    CHECK((single_calls == 0) == (calls == backends::cublas_calls::grouped));
    CHECK(grouped_calls <= 4); // two for each bank that has tokens
  }
}

TEST_CASE("Layers by cuBLAS give the host's outputs: bfloat16") {
  check<bfloat16>(24, {16, 9, 40, 1}, 21, 2e-2);
  check<bfloat16>(13, {8, 24}, 1, 2e-2); // rows that are no whole packets, experts without a token
}
TEST_CASE("Layers by cuBLAS give the host's outputs: float") { check<float>(10, {5, 12, 3}, 17, 1e-5); }

} // namespace
#else
TEST_CASE("cuBLAS's headers are not here: nothing to test") { CHECK(true); }
#endif
