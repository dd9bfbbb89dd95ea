// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>

#include "../support/shapes.hpp"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// A layer and its inputs as a folder of files, which hmoe and its peers read (benchmarks/peers.cpp writes it):
///   problem.json      sizes, and which inputs there are
///   weights.bin       float32; of each expert gate [h×d], up [h×d], down [d×h]
///   T-LOAD-i.bin      input i of T tokens: x float32 [T×d], expert ids int32 [T×k], their weights float32 [T×k]
///   T-LOAD.y.bin      float32 [T×d]: what hmoe's layer makes of input 0 in float
namespace benchmarks {

/// The layers: those of support/shapes.hpp that every peer can run (unequal ones padded), and two more.
[[nodiscard]] inline std::vector<layer_shape> peer_shapes() {
  using hmoe::widths::uniform;
  std::vector<layer_shape> all;
  for (layer_shape& shape : shapes())
    if (!shape.mixed() && shape.top_p == 0)
      all.push_back(std::move(shape));
  all.push_back({"gpt_oss_20b", 2880, uniform{.count = 32, .total = 92160}, 4}); // with SwiGLU and without biases
  all.push_back({"experts_512", 1024, uniform{.count = 512, .total = 65536}, 10});
  return all;
}

/// The weights of a problem, mapped from their file: a source for simd::pack.
class mapped_weights {
public:
  static constexpr std::size_t lanes = 2;

  mapped_weights(const std::string& folder, const nlohmann::json& problem)
      : d_model_(problem.at("d_model")), widths_(problem.at("widths").get<std::vector<std::size_t>>()) {
    starts_.push_back(0);
    for (const std::size_t h : widths_)
      starts_.push_back(starts_.back() + 3 * h * d_model_);
    const std::string path = folder + "/weights.bin";
    const int file = ::open(path.c_str(), O_RDONLY);
    hmoe::require(file >= 0, path, " cannot be opened");
    bytes_ = starts_.back() * sizeof(float);
    void* const memory = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
    ::close(file);
    hmoe::require(memory != MAP_FAILED, path, " cannot be mapped");
    values_ = static_cast<const float*>(memory);
  }
  mapped_weights(const mapped_weights&) = delete;
  mapped_weights& operator=(const mapped_weights&) = delete;
  ~mapped_weights() { ::munmap(const_cast<float*>(values_), bytes_); }

  [[nodiscard]] std::size_t size() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return widths_[e]; }
  [[nodiscard]] bool has_biases() const noexcept { return false; }
  /// Rows of gate (m = 0), up (1) or down (2).
  void read(std::size_t e, std::size_t m, std::size_t first, hmoe::matrix_view<float> to) const noexcept {
    const float* const matrix = values_ + starts_[e] + m * widths_[e] * d_model_;
    for (std::size_t r = 0; r < to.rows(); ++r)
      std::copy_n(matrix + (first + r) * to.cols(), to.cols(), to.row(r).begin());
  }
  void read_bias(std::size_t, std::size_t, std::size_t, hmoe::matrix_view<float>) const noexcept {}

private:
  std::size_t d_model_, bytes_ = 0;
  std::vector<std::size_t> widths_, starts_;
  const float* values_ = nullptr;
};

/// One input of a layer.
struct peer_input {
  hmoe::matrix<float> x;
  hmoe::assignment<float> assigned;
};

namespace detail {

template <class T> void read_values(std::ifstream& from, const std::string& path, std::span<T> to) {
  from.read(reinterpret_cast<char*>(to.data()), static_cast<std::streamsize>(to.size_bytes()));
  hmoe::require(from.good(), path, " is too short");
}

} // namespace detail

[[nodiscard]] inline peer_input read_input(const std::string& path, std::size_t tokens, std::size_t d_model,
                                           std::size_t top_k) {
  std::ifstream file(path, std::ios::binary);
  hmoe::require(file.good(), path, " cannot be opened");
  peer_input made{hmoe::matrix<float>(tokens, d_model), {}};
  detail::read_values(file, path, std::span(made.x.data(), made.x.size()));
  std::vector<std::int32_t> ids(tokens * top_k);
  std::vector<float> weights(ids.size());
  detail::read_values(file, path, std::span(ids));
  detail::read_values(file, path, std::span(weights));
  made.assigned.resize_tokens(tokens);
  for (std::size_t t = 0; t <= tokens; ++t)
    made.assigned.offsets()[t] = static_cast<hmoe::index_t>(t * top_k);
  made.assigned.resize_entries();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    made.assigned.experts()[i] = static_cast<hmoe::index_t>(ids[i]);
    made.assigned.weights()[i] = weights[i];
  }
  return made;
}

[[nodiscard]] inline hmoe::matrix<float> read_expected(const std::string& path, std::size_t tokens,
                                                       std::size_t d_model) {
  std::ifstream file(path, std::ios::binary);
  hmoe::require(file.good(), path, " cannot be opened");
  hmoe::matrix<float> y(tokens, d_model);
  detail::read_values(file, path, std::span(y.data(), y.size()));
  return y;
}

} // namespace benchmarks
