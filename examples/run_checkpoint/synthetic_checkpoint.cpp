// SPDX-License-Identifier: MIT
#include "synthetic_checkpoint.hpp"

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/tensor_type.hpp>

#include "memory.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <numeric>
#include <system_error>
#include <utility>
#include <vector>

namespace run_checkpoint {
namespace {

constexpr std::array<model_shape, 5> shapes{{{"tiny", "qwen3_moe", 16, 96, 256, 4},
                                             {"qwen3_30b_a3b", "qwen3_moe", 128, 768, 2048, 8},
                                             {"olmoe", "olmoe", 64, 1024, 2048, 8},
                                             {"gpt_oss_20b", "gpt_oss", 32, 2880, 2880, 4},
                                             {"deepseek_v2_lite", "deepseek_v2", 64, 1408, 2048, 6, 2}}};

/// 64 bits that depend on a stream and a place in it (splitmix64).
std::uint64_t random_bits(std::uint64_t stream, std::uint64_t i) {
  std::uint64_t bits = (stream << 40U) + i + 0x9e3779b97f4a7c15U;
  bits = (bits ^ bits >> 30U) * 0xbf58476d1ce4e5b9U;
  return (bits ^ bits >> 27U) * 0x94d049bb133111ebU;
}

/// Tensors that are made row by row while the file is written, so that no layer has to be in memory.
class random_tensors {
public:
  explicit random_tensors(std::string block) : block_(std::move(block)) {}

  hmoe::io::safetensors_writer& writer() { return writer_; }
  /// Uniform values with variance 1/cols.
  template <class T> void add(const std::string& name, std::size_t rows, std::size_t cols) {
    add<T>(name, {rows, cols}, rows, cols);
  }
  template <class T>
  void add(const std::string& name, std::vector<std::size_t> shape, std::size_t rows, std::size_t cols) {
    const float scale = std::sqrt(3.0F / static_cast<float>(cols));
    writer_.add(block_ + name, hmoe::io::tensor_type_of<T>, std::move(shape), rows, cols * sizeof(T),
                [scale, cols, stream = streams_++](std::size_t row, std::span<std::byte> to) {
                  for (std::size_t c = 0; c < cols; ++c) {
                    const auto bits = static_cast<float>(random_bits(stream, row * cols + c) >> 40U);
                    const T value(scale * (bits * 0x1p-23F - 1.0F));
                    std::memcpy(to.data() + c * sizeof(T), &value, sizeof(T));
                  }
                });
  }
  /// [experts × rows × cols] as MXFP4, of about the same variance: a random code is 2.9 in the mean of squares.
  void add_mxfp4(const std::string& name, std::size_t experts, std::size_t rows, std::size_t cols) {
    const double exponent = std::round(std::log2(1 / (2.9 * std::sqrt(static_cast<double>(cols)))));
    writer_.add(block_ + name + "_blocks", hmoe::io::tensor_type::u8, {experts, rows, cols / 32, 16}, experts * rows,
                cols / 2, [cols, stream = streams_++](std::size_t row, std::span<std::byte> to) {
                  for (std::size_t i = 0; i < to.size(); ++i)
                    to[i] = static_cast<std::byte>(random_bits(stream, row * cols + i) >> 56U);
                });
    writer_.add(block_ + name + "_scales", hmoe::io::tensor_type::u8, {experts, rows, cols / 32}, experts * rows,
                cols / 32,
                [code = static_cast<std::byte>(127 + static_cast<int>(exponent))](
                    std::size_t, std::span<std::byte> to) { std::ranges::fill(to, code); });
  }

private:
  std::string block_;
  hmoe::io::safetensors_writer writer_;
  std::uint64_t streams_ = 0;
};

/// Widths from 0 to the full one in an order without meaning: h · u^(1/kept − 1), whose mean is kept · h for u that are
/// spread evenly from 0 to 1.
std::vector<std::size_t> pruned_widths(std::size_t width, std::size_t experts, double kept) {
  std::vector<std::size_t> widths(experts);
  std::size_t step = 7;
  while (std::gcd(step, experts) != 1)
    ++step;
  for (std::size_t e = 0; e < experts; ++e) {
    const std::size_t place = e * step % experts;
    const double u = experts == 1 ? 1 : static_cast<double>(place) / static_cast<double>(experts - 1);
    widths[e] = static_cast<std::size_t>(std::lround(static_cast<double>(width) * std::pow(u, 1 / kept - 1)));
  }
  return widths;
}

} // namespace

std::span<const model_shape> model_shapes() { return shapes; }
const model_shape& shape_named(std::string_view name) {
  const auto* found = std::ranges::find(shapes, name, &model_shape::name);
  hmoe::require(found != shapes.end(), "there is no shape \"", name, "\"");
  return *found;
}

std::size_t experts_that_fit(const model_shape& shape, double kept, const std::filesystem::path& folder) {
  const double weights = 3.0 * static_cast<double>(shape.width * shape.d_model) * kept;
  double fit = static_cast<double>(shape.experts);
  if (const double memory = bytes_in("/proc/meminfo", "MemAvailable"); memory > 0)
    fit = std::min(fit, 0.5 * memory / (weights * (sizeof(float) + sizeof(hmoe::bfloat16))));
  std::error_code error;
  if (const auto space = std::filesystem::space(folder, error); !error)
    fit = std::min(fit, 0.9 * static_cast<double>(space.available) / (weights * sizeof(hmoe::bfloat16)));
  hmoe::require(fit >= static_cast<double>(shape.k), "the shape ", shape.name, " needs memory and disk for ", shape.k,
                " experts at least: take a smaller one (--shape)");
  return static_cast<std::size_t>(fit);
}

void write_model(const model_shape& shape, std::size_t experts, const std::filesystem::path& folder) {
  const std::size_t d = shape.d_model, h = shape.width;
  std::ofstream config(folder / "config.json");
  // The words of all these families: each reads its own.
  config << "{\"model_type\": \"" << shape.model_type << "\", \"num_hidden_layers\": 1, \"hidden_size\": " << d;
  for (const char* name : {"num_experts", "num_local_experts", "n_routed_experts"})
    config << ", \"" << name << "\": " << experts;
  for (const char* name : {"intermediate_size", "moe_intermediate_size"})
    config << ", \"" << name << "\": " << h;
  config << ", \"num_experts_per_tok\": " << shape.k << ", \"n_shared_experts\": " << shape.shared << "}\n";
  config.close();
  hmoe::require(config.good(), "config.json could not be written to ", folder.string());

  random_tensors tensors("model.layers.0.mlp.");
  using hmoe::bfloat16;
  if (shape.is_gpt_oss()) {
    tensors.add<bfloat16>("router.weight", experts, d);
    tensors.add<bfloat16>("router.bias", {experts}, 1, experts);
    tensors.add_mxfp4("experts.gate_up_proj", experts, 2 * h, d);
    tensors.add_mxfp4("experts.down_proj", experts, d, h);
    tensors.add<bfloat16>("experts.gate_up_proj_bias", experts, 2 * h);
    tensors.add<bfloat16>("experts.down_proj_bias", experts, d);
  } else {
    tensors.add<bfloat16>("gate.weight", experts, d);
    const auto add_expert = [&](const std::string& name, std::size_t width) {
      tensors.add<bfloat16>(name + ".gate_proj.weight", width, d);
      tensors.add<bfloat16>(name + ".up_proj.weight", width, d);
      tensors.add<bfloat16>(name + ".down_proj.weight", d, width);
    };
    for (std::size_t e = 0; e < experts; ++e)
      add_expert("experts." + std::to_string(e), h);
    if (shape.shared != 0)
      add_expert("shared_experts", shape.shared * h);
  }
  tensors.writer().write((folder / "model.safetensors").string());
}

void write_pruned(const model_shape& shape, std::size_t experts, double kept, const std::string& path) {
  using hmoe::bfloat16;
  const std::size_t d = shape.d_model;
  random_tensors tensors("");
  hmoe::io::ragged_layer layer{.prefix = "", .d_model = d, .reason = {"pruned", "at random", std::string(shape.name)}};
  layer.tensors = {"router.weight"};
  for (const std::size_t h : pruned_widths(shape.width, experts, kept)) {
    const std::size_t e = layer.experts.size();
    hmoe::io::ragged_expert& expert = layer.experts.emplace_back();
    expert.kind = h == 0 ? "vector" : shape.is_gpt_oss() ? "glu.gpt_oss" : "glu.silu";
    expert.width = h;
    const auto add = [&](const char* name, std::size_t rows, std::size_t cols) {
      expert.tensors.emplace_back(name);
      expert.format = "BF16";
      tensors.add<bfloat16>(hmoe::parameter_info{.name = name, .expert = e}.full_name(), rows, cols);
    };
    if (h != 0) {
      add("gate", h, d);
      add("up", h, d);
      add("down", d, h);
    }
    if (h != 0 && shape.is_gpt_oss()) {
      add("gate_bias", 1, h);
      add("up_bias", 1, h);
    }
    if (shape.is_gpt_oss())
      add("down_bias", 1, d);
  }
  tensors.add<float>("router.weight", experts, d);
  hmoe::io::ragged_manifest manifest;
  manifest.layers.push_back(std::move(layer));
  tensors.writer().set_metadata(hmoe::io::ragged_manifest::key, manifest.to_json());
  tensors.writer().write(path);
}

} // namespace run_checkpoint
