// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/device_value.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/memory.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace hmoe::backends {

namespace cuda_detail {
/// Blocks that add up the squares of gradients: fixed, so that the order of the sum is.
inline constexpr unsigned norm_blocks = 256;
} // namespace cuda_detail

/// Gradients of a device layer, made by its make_gradients: float on the device, in the layout of the weights. Passes
/// add to them.
class cuda_gradients {
public:
  /// Zeros: per bank four arrays of the given sizes (see device_bank::gradient_sizes), and the router's block.
  cuda_gradients(const executors::cuda_stream& stream, const std::vector<std::array<std::size_t, 4>>& banks,
                 std::size_t router_bytes)
      : sizes_(banks), router_bytes_(router_bytes), squared_norm_(stream) {
    lay_out(nullptr);
    block_.resize_for_overwrite(stream, bytes_);
    lay_out(block_.data());
    block_.set_zero(stream);
    norm_partials_.resize_for_overwrite(stream, cuda_detail::norm_blocks);
  }

  void set_zero(const executors::cuda_stream& stream) { block_.set_zero(stream); }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// √Σ g² from before cuda_layer::clip_gradient_norm; waits for the stream.
  [[nodiscard]] double read_norm(const cuda_context& ctx) const {
    return std::sqrt(squared_norm_.read(ctx.executor()));
  }

  // What passes and optimisers ask for.
  [[nodiscard]] std::size_t bank_count() const noexcept { return sizes_.size(); }
  [[nodiscard]] cuda_detail::ffn_gradient_arrays bank(std::size_t b) const noexcept {
    return {banks_[b][0], banks_[b][1], banks_[b][2], banks_[b][3]};
  }
  [[nodiscard]] const std::array<std::size_t, 4>& sizes(std::size_t b) const noexcept { return sizes_[b]; }
  [[nodiscard]] std::byte* router() const noexcept { return router_; }
  [[nodiscard]] std::size_t router_bytes() const noexcept { return router_bytes_; }
  [[nodiscard]] device_value<double>& squared_norm() noexcept { return squared_norm_; }
  [[nodiscard]] double* norm_partials() noexcept { return norm_partials_.data(); }
  /// All of it, padding included, which stays 0.
  [[nodiscard]] float* data() const noexcept { return reinterpret_cast<float*>(block_.data()); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_ / sizeof(float); }
  /// The four arrays of a bank; waits for the stream.
  [[nodiscard]] std::array<std::vector<float>, 4> read_bank(const executors::cuda_stream& stream, std::size_t b) const {
    std::array<std::vector<float>, 4> arrays;
    for (std::size_t i = 0; i < 4; ++i) {
      arrays[i].resize(sizes_[b][i]);
      read(stream, banks_[b][i], arrays[i].data(), sizes_[b][i] * sizeof(float));
    }
    stream.synchronize();
    return arrays;
  }
  /// The router's block; waits for the stream.
  [[nodiscard]] std::vector<std::byte> read_router(const executors::cuda_stream& stream) const {
    std::vector<std::byte> block(router_bytes_);
    read(stream, router_, block.data(), router_bytes_);
    stream.synchronize();
    return block;
  }
  /// The reverse of read_bank and read_router.
  void write_bank(const executors::cuda_stream& stream, std::size_t b,
                  const std::array<std::vector<float>, 4>& arrays) {
    for (std::size_t i = 0; i < 4; ++i) {
      require(arrays[i].size() == sizes_[b][i], "array ", i, " of a bank's gradients has ", sizes_[b][i],
              " values, given are ", arrays[i].size());
      write(stream, arrays[i].data(), banks_[b][i], sizes_[b][i] * sizeof(float));
    }
  }
  void write_router(const executors::cuda_stream& stream, const std::vector<std::byte>& block) {
    require(block.size() == router_bytes_, "the router's gradients have ", router_bytes_, " bytes, given are ",
            block.size());
    write(stream, block.data(), router_, router_bytes_);
  }

private:
  void lay_out(std::byte* block) {
    cuda_detail::carver memory(block);
    banks_.clear();
    for (const auto& sizes : sizes_) {
      banks_.emplace_back();
      for (std::size_t i = 0; i < 4; ++i) {
        float* const array = memory.take<float>(sizes[i]);
        banks_.back()[i] = sizes[i] == 0 ? nullptr : array;
      }
    }
    router_ = memory.take<std::byte>(router_bytes_);
    bytes_ = memory.used();
  }
  static void read(const executors::cuda_stream& stream, const void* from, void* to, std::size_t bytes) {
    if (bytes != 0)
      cuda_detail::require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream.get()), "copying ",
                                bytes, " bytes of gradients from the device");
  }
  static void write(const executors::cuda_stream& stream, const void* from, void* to, std::size_t bytes) {
    if (bytes != 0)
      cuda_detail::require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream.get()), "copying ",
                                bytes, " bytes of gradients to the device");
  }

  std::vector<std::array<std::size_t, 4>> sizes_;
  std::size_t router_bytes_, bytes_ = 0;
  std::vector<std::array<float*, 4>> banks_;
  std::byte* router_ = nullptr;
  device_buffer<std::byte> block_;
  device_value<double> squared_norm_;
  device_buffer<double> norm_partials_; ///< of the kernel that adds up squares
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
