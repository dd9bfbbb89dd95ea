// SPDX-License-Identifier: MIT
// What packed layers of released models compute is in tests/golden/models.cpp.
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/fp8_block.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/io/models/load_packed_layer.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/counting_resource.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <memory_resource>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace models = hmoe::io::models;
namespace formats = hmoe::backends::formats;
using hmoe::io::tensor_type;

namespace {
/// A model folder with one layer of random weights.
class planted_model {
public:
  explicit planted_model(const std::string& config) { support::set_contents(folder_ / "config.json", config); }

  /// `byte(i)` of the file's bytes.
  void add(const std::string& name, tensor_type type, std::vector<std::size_t> shape,
           const std::function<unsigned(std::size_t)>& byte) {
    std::size_t size = hmoe::io::traits_of(type).block_bytes;
    for (const std::size_t n : shape)
      size *= n;
    std::vector<std::byte>& bytes = bytes_.emplace_back(size);
    for (std::size_t i = 0; i < size; ++i)
      bytes[i] = static_cast<std::byte>(byte(i));
    writer_.add("model.layers.0." + name, type, std::move(shape), bytes);
  }
  void add_floats(const std::string& name, std::vector<std::size_t> shape) {
    std::size_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i)
      rows *= shape[i];
    const auto values = support::random_matrix<float>(random_, rows, shape.back());
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    add(name, tensor_type::f32, std::move(shape), [bytes](std::size_t i) { return bytes[i]; });
  }
  [[nodiscard]] std::string written() const {
    writer_.write((folder_ / "model.safetensors").string());
    return folder_.path().string();
  }

private:
  support::scratch_folder folder_;
  support::random_source random_{5};
  std::deque<std::vector<std::byte>> bytes_;
  hmoe::io::safetensors_writer writer_;
};

/// Checks that the layer has the bits of one that was packed from floats, and what memory it took beside the result:
/// `panel` bytes for each value of the longest row, twice, the router, and some bytes where blocks begin.
template <class Format, class Family>
void check_packing(const std::string& folder, std::size_t d, std::size_t h, std::size_t router, double panel) {
  const hmoe::context ctx{hmoe::backends::simd{}};
  support::counting_resource memory;
  std::pmr::memory_resource* const before = std::pmr::set_default_resource(&memory); // whoever asks is counted
  const auto layer = models::load_packed_layer<Format, Family>(ctx, folder, 0);
  std::pmr::set_default_resource(before);
  const auto& bank = layer.experts().template bank<0>();
  std::size_t packed = 0;
  for (std::size_t e = 0; e < bank.size(); ++e)
    packed += bank.bytes(e);
  const auto beside = static_cast<std::size_t>(2 * panel * static_cast<double>(std::max(d, h)));
  CHECK(memory.live_bytes >= packed);
  CHECK(memory.peak_bytes <= packed + beside + router * sizeof(float) + 1024);
  CHECK(beside + router * sizeof(float) + 1024 < packed / 4); // or it says nothing

  const auto expected = hmoe::backends::simd<>::pack<Format>(models::load_layer<Family>(folder, 0));
  const hmoe::packed_values ours = bank.values(), theirs = expected.experts().template bank<0>().values();
  CHECK(ours.widths == theirs.widths);
  REQUIRE(ours.panels.size() == theirs.panels.size());
  CHECK(std::ranges::equal(ours.panels, theirs.panels));
  CHECK(std::ranges::equal(ours.in_bias, theirs.in_bias));
  CHECK(std::ranges::equal(ours.out_bias, theirs.out_bias));
  CHECK(bank.layout() == expected.experts().template bank<0>().layout());
}
constexpr std::size_t columns = hmoe::backends::simd<>::packed_glu<formats::q8, hmoe::experts::silu>::panel_columns;
} // namespace

TEST_CASE("a layer of floats goes to packed weights panel by panel, bit for bit as one that was loaded before") {
  constexpr std::size_t d = 72, h = 104, experts = 5;
  planted_model model(R"({"model_type": "mixtral", "hidden_size": 72, "intermediate_size": 104, "num_local_experts": 5,
                          "num_experts_per_tok": 2, "num_hidden_layers": 1})");
  model.add_floats("block_sparse_moe.gate.weight", {experts, d});
  for (std::size_t e = 0; e < experts; ++e) {
    const std::string name = "block_sparse_moe.experts." + std::to_string(e);
    model.add_floats(name + ".w1.weight", {h, d});
    model.add_floats(name + ".w3.weight", {h, d});
    model.add_floats(name + ".w2.weight", {d, h});
  }
  const std::string folder = model.written();
  check_packing<formats::q8, models::mixtral>(folder, d, h, experts * d, columns * sizeof(float));

  const hmoe::context ctx{hmoe::backends::simd{}};
  CHECK(support::error_of([&] {
          static_cast<void>(models::load_packed_layer<formats::q8, models::olmoe>(ctx, folder, 0));
        }).ends_with("layer 0 is of the family \"mixtral\", asked for is a layer of \"olmoe\""));
}

TEST_CASE_TEMPLATE("FP8 with a factor for each square of 128, a shared expert among the routed ones", Format,
                   formats::q8, formats::fp8) {
  constexpr std::size_t d = 160, h = 136, experts = 4;
  planted_model model(R"({"model_type": "deepseek_v3", "hidden_size": 160, "moe_intermediate_size": 136,
                          "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
                          "num_hidden_layers": 1})");
  model.add_floats("mlp.gate.weight", {experts, d});
  model.add_floats("mlp.gate.e_score_correction_bias", {experts});
  for (std::size_t e = 0; e <= experts; ++e) {
    const std::string name = e < experts ? "mlp.experts." + std::to_string(e) : "mlp.shared_experts";
    for (const char* lane : {".gate_proj", ".up_proj", ".down_proj"}) {
      const std::size_t rows = lane == std::string(".down_proj") ? d : h, cols = d + h - rows;
      // All codes but those of NaN, in some order; in each part of a row 448, so that packing floats finds the same
      // scale, a power of two.
      model.add(name + lane + ".weight", tensor_type::f8_e4m3, {rows, cols}, [&](std::size_t i) {
        return i % cols % 128 == 5 ? 0x7eU : static_cast<unsigned>(i * 37 % 127 + i % 2 * 128);
      });
      model.add(name + lane + ".weight_scale_inv", tensor_type::f32,
                {hmoe::blocks_of(rows, 128), hmoe::blocks_of(cols, 128)},
                [](std::size_t i) { return i % 4 == 3 ? 0x3cU + static_cast<unsigned>(i / 4 % 3) : 0U; });
    }
  }
  constexpr double panel = std::is_same_v<Format, formats::fp8>
                               ? columns * sizeof(hmoe::fp8_block) / 128.0 * 256 / 160 // of a row's two blocks
                               : columns * sizeof(float);
  check_packing<Format, models::deepseek_v3>(model.written(), d, h, experts * (d + 1), panel);
}

TEST_CASE("MXFP4 blocks are taken over: there is no panel of floats") {
  constexpr std::size_t d = 64, h = 96, experts = 6;
  planted_model model(R"({"model_type": "gpt_oss", "hidden_size": 64, "intermediate_size": 96, "num_local_experts": 6,
                          "num_experts_per_tok": 2, "num_hidden_layers": 1})");
  model.add_floats("mlp.router.weight", {experts, d});
  model.add_floats("mlp.router.bias", {experts});
  // Each block has the code of 6, so that packing floats finds the same scale.
  const auto codes = [](std::size_t i) { return i % 16 == 5 ? 0x37U : static_cast<unsigned>(i * 41 % 256); };
  const auto scales = [](std::size_t i) { return static_cast<unsigned>(120 + i % 7); };
  model.add("mlp.experts.gate_up_proj_blocks", tensor_type::u8, {experts, 2 * h, d / 32, 16}, codes);
  model.add("mlp.experts.gate_up_proj_scales", tensor_type::u8, {experts, 2 * h, d / 32}, scales);
  model.add("mlp.experts.down_proj_blocks", tensor_type::u8, {experts, d, h / 32, 16}, codes);
  model.add("mlp.experts.down_proj_scales", tensor_type::u8, {experts, d, h / 32}, scales);
  model.add_floats("mlp.experts.gate_up_proj_bias", {experts, 2 * h});
  model.add_floats("mlp.experts.down_proj_bias", {experts, d});
  check_packing<formats::mxfp4, models::gpt_oss>(model.written(), d, h, experts * (d + 1),
                                                 columns * sizeof(hmoe::mxfp4_block) / 32.0);
}
