// SPDX-License-Identifier: MIT
// Layers of checkpoints, read by io::models, against what the released classes computed: see tests/golden/generate.py.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/io/models/load_layer.hpp>
#include <hmoe/io/models/load_packed_layer.hpp>

#include "support/counting_resource.hpp"
#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace models = hmoe::io::models;

namespace {
using hmoe::matrix;

const std::string golden_models = std::string(HMOE_GOLDEN_DIRECTORY) + "/models/";

std::vector<std::string> model_folders() {
  std::vector<std::string> result;
  for (const auto& entry : std::filesystem::directory_iterator(golden_models))
    result.push_back(entry.path().string());
  std::ranges::sort(result);
  return result;
}
matrix<float> tensor(const hmoe::io::safetensors_file& file, const char* name) {
  const hmoe::io::stored_tensor& stored = file.at(name);
  matrix<float> result(stored.rows(), stored.cols());
  stored.read(result.view());
  return result;
}
/// The largest difference, as a part of the largest value.
double error_of_values(hmoe::matrix_view<const float> ours, hmoe::matrix_view<const float> theirs) {
  REQUIRE(ours.rows() == theirs.rows());
  REQUIRE(ours.cols() == theirs.cols());
  double error = 0, largest = 1e-30;
  for (std::size_t r = 0; r < ours.rows(); ++r)
    for (std::size_t c = 0; c < ours.cols(); ++c) {
      error = std::max(error, std::abs(double{ours(r, c)} - double{theirs(r, c)}));
      largest = std::max(largest, std::abs(double{theirs(r, c)}));
    }
  return error / largest;
}

/// What transformers computed in a folder, and the inputs of the pass.
struct golden_layer {
  explicit golden_layer(const std::string& where)
      : folder(where), io(where + "/io.safetensors"), number(std::stoul(*io.metadata("layer"))), x(tensor(io, "x")),
        router_x(io.find("router_x") == nullptr ? matrix<float>() : tensor(io, "router_x")) {
    if (io.find("token_ids") == nullptr)
      return;
    const matrix<float> values = tensor(io, "token_ids");
    token_ids.assign(values.data(), values.data() + values.size());
  }
  [[nodiscard]] hmoe::routing_inputs<float> inputs() const {
    return {.token_ids = {token_ids.data(), token_ids.size()}, .router_x = router_x};
  }

  std::string folder;
  hmoe::io::safetensors_file io;
  std::size_t number;
  matrix<float> x, router_x;
  std::vector<hmoe::index_t> token_ids;
};

/// The same choices and weights, and outputs that differ by less than `bound` of the largest one.
template <class Context>
void check_forward(const Context& ctx, const hmoe::any_layer<Context>& layer, const golden_layer& golden,
                   hmoe::tape<float>& tape, double bound) {
  const matrix<float> ids = tensor(golden.io, "ids");
  matrix<float> y(golden.x.rows(), golden.x.cols());
  layer.forward(ctx, golden.x, y, tape, golden.inputs());
  CHECK(error_of_values(y, tensor(golden.io, "y")) < bound);
  matrix<float> weights(ids.rows(), ids.cols());
  const auto& assigned = std::as_const(tape).assignment();
  for (std::size_t t = 0; t < ids.rows(); ++t)
    for (std::size_t i = 0; i < ids.cols(); ++i) { // shared experts come after them
      REQUIRE(assigned.experts_of(t)[i] == static_cast<hmoe::index_t>(ids(t, i)));
      weights(t, i) = assigned.weights_of(t)[i];
    }
  CHECK(error_of_values(weights, tensor(golden.io, "weights")) < 1e-5);
}

template <class Context> void compare(const Context& ctx, const golden_layer& golden) {
  const std::string& folder = golden.folder;
  const auto& io = golden.io;
  const auto layer = models::load_layer(ctx, folder, golden.number);
  const matrix<float>&x = golden.x, &router_x = golden.router_x, dy = tensor(io, "dy");
  matrix<float> dx(x.rows(), x.cols());
  auto tape = layer.make_tape(x.rows());
  const bool own = layer.reads_router_x();
  check_forward(ctx, layer, golden, tape, 1e-5);

  auto gradients = layer.make_gradients();
  matrix<float> d_router_x(router_x.rows(), router_x.cols());
  layer.backward(ctx, tape, dy, dx, d_router_x, gradients);
  CHECK(error_of_values(dx, tensor(io, "dx")) < 1e-4);
  if (own)
    CHECK(error_of_values(d_router_x, tensor(io, "d_router_x")) < 1e-4);
  // Their gradients stand in a file as a model's weights do, under the names that transformers has in memory.
  auto expected = models::load_layer(ctx, models::model_config::of_folder(folder),
                                     hmoe::io::sharded_safetensors(folder + "/gradients.safetensors"), golden.number);
  std::vector<std::pair<std::string, hmoe::matrix_view<float>>> theirs;
  expected.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> view) {
    theirs.emplace_back(info.full_name(), view);
  });
  // JetMoE's layer has one bias, which is each expert's here; our gates have biases of zeros.
  const bool one_bias = folder.ends_with("jetmoe");
  matrix<float> bias_gradient(1, x.cols());
  std::size_t next = 0;
  gradients.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> view) {
    REQUIRE(next < theirs.size());
    CAPTURE(theirs[next].first);
    CHECK(info.full_name() == theirs[next].first);
    if (one_bias && info.name.ends_with("bias")) {
      for (std::size_t c = 0; info.name == "down_bias" && c < view.cols(); ++c)
        bias_gradient(0, c) += view(0, c);
      if (info.name == "down_bias" && info.expert + 1 == layer.size())
        CHECK(error_of_values(bias_gradient, theirs[next].second) < 1e-4);
    } else {
      CHECK(error_of_values(view, theirs[next].second) < 1e-4);
    }
    ++next;
  });
  CHECK(next == theirs.size());
}
} // namespace

TEST_CASE("layers of checkpoints compute what the released classes compute") {
  const std::vector<std::string> folders = model_folders();
  REQUIRE(folders.size() == 27);
  for (const std::string& folder : folders) {
    CAPTURE(folder);
    const golden_layer golden(folder);
    compare(hmoe::context{hmoe::backends::reference{}}, golden);
    compare(hmoe::context{hmoe::backends::eigen{}}, golden);
    const hmoe::context fast{hmoe::backends::simd{}};
    compare(fast, golden);
    // Straight from the file into packed weights.
    const auto packed = models::load_packed_layer<hmoe::backends::formats::f32>(fast, folder, golden.number);
    CHECK_FALSE(packed.trainable());
    auto tape = packed.make_tape(golden.x.rows());
    check_forward(fast, packed, golden, tape, 1e-5);
  }
}

TEST_CASE("a family known at compile time gives its own type, with the same weights") {
  const auto typed = models::load_layer<models::mixtral>(golden_models + "mixtral", 1);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const auto any = models::load_layer(ctx, golden_models + "mixtral", 1);
  const matrix<float> x = tensor(hmoe::io::safetensors_file(golden_models + "mixtral/io.safetensors"), "x");
  matrix<float> ours(x.rows(), x.cols()), theirs(x.rows(), x.cols());
  typed.forward(ctx, x, ours);
  any.forward(ctx, x, theirs);
  CHECK(error_of_values(ours, theirs) == 0);
  CHECK(support::error_of([&] {
          const hmoe::context fast{hmoe::backends::simd{}};
          const auto packed =
              models::load_packed_layer<hmoe::backends::formats::f32>(fast, golden_models + "mixtral", 1);
          static_cast<void>(packed.make_gradients());
        }).starts_with("hmoe: make_gradients: the experts of this layer are packed for inference"));
}

TEST_CASE("the experts are in memory once while they are loaded, and not at all where loading is refused") {
  const std::string folder = golden_models + "mixtral";
  constexpr std::size_t weights = std::size_t{8} * 3 * 16 * 12 * sizeof(float);
  support::counting_resource memory;
  const hmoe::context ctx{hmoe::backends::reference{}};
  {
    const auto layer = models::load_layer(ctx, folder, 1, {.memory = &memory});
    CHECK(memory.live_bytes >= weights);
    CHECK(memory.peak_bytes < weights + weights / 8);
  }
  CHECK(memory.live_bytes == 0);
  memory.allocations = 0;
  std::string text = support::contents_of(folder + "/config.json");
  text.replace(text.find("\"intermediate_size\": 12"), 23, "\"intermediate_size\": 13");
  CHECK(support::error_of([&] {
          static_cast<void>(models::load_layer(ctx, models::model_config(text, "c"),
                                               hmoe::io::sharded_safetensors(folder), 1, {.memory = &memory}));
        }) != "no error");
  CHECK(memory.allocations == 0);
}

TEST_CASE("what config.json and the tensors do not agree on is refused, with the numbers") {
  const hmoe::context ctx{hmoe::backends::reference{}};
  /// What loading is refused with when `what` in the family's config.json is replaced; the paths are left out.
  const auto refused = [&](const std::string& family, const std::string& what, const std::string& by,
                           std::size_t layer = 1) {
    const std::string folder = golden_models + family;
    std::string text = support::contents_of(folder + "/config.json");
    const std::size_t at = text.find(what);
    REQUIRE(at != text.npos);
    text.replace(at, what.size(), by);
    std::string message = support::error_of([&] {
      static_cast<void>(
          models::load_layer(ctx, models::model_config(text, "c"), hmoe::io::sharded_safetensors(folder), layer));
    });
    for (std::size_t path = message.find(folder); path != message.npos; path = message.find(folder))
      message.erase(path, folder.size() + 1);
    return message;
  };
  CHECK(refused("mixtral", "\"hidden_size\": 16", "\"hidden_size\": 17") ==
        "hmoe: model.safetensors: tensor \"model.layers.1.block_sparse_moe.gate.weight\" is F32 [8, 16], needed is a "
        "matrix of 8 x 17");
  CHECK(refused("mixtral", "\"num_local_experts\": 8", "\"num_local_experts\": 16777216")
            .ends_with("is F32 [8, 16], needed is a matrix of 16777216 x 16"));
  CHECK(
      refused("mixtral", "\"intermediate_size\": 12", "\"intermediate_size\": 16777216") ==
      "hmoe: model.safetensors: tensor \"model.layers.1.block_sparse_moe.experts.0.w1.weight\" is F32 [12, 16], needed "
      "is F32 [16777216, 16] or another type of that kind");
  CHECK(refused("mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9").find('9') != std::string::npos);
  CHECK(refused("mixtral", "\"num_local_experts\": 8", "\"num_local_experts\": null") ==
        "hmoe: c has no value \"num_local_experts\"");
  CHECK(refused("mixtral", "\"model_type\": \"mixtral\"", "\"model_type\": \"llama\"")
            .starts_with("hmoe: c: no family is known for the model_type \"llama\"; known are mixtral, minimax_m2, "));
  CHECK(refused("qwen2_moe", "\"model_type\": \"qwen2_moe\"", "\"model_type\": \"qwen3_moe\"") ==
        "hmoe: model.safetensors and the layer \"model.layers.1.mlp.\" that config.json describes disagree; 4 tensors "
        "are "
        "surplus: \"model.layers.1.mlp.shared_expert.down_proj.weight\", "
        "\"model.layers.1.mlp.shared_expert.gate_proj.weight\", \"model.layers.1.mlp.shared_expert.up_proj.weight\", "
        "\"model.layers.1.mlp.shared_expert_gate.weight\"");
  CHECK(refused("qwen2_moe", "\"vocab_size\"", "\"v\"", 0) ==
        "hmoe: c: layer 0 is dense, it has no experts (mlp_only_layers)");
  CHECK(refused("deepseek_v3", "\"n_group\": 4", "\"n_group\": 3").find("3 groups for 8 experts") != std::string::npos);
  CHECK(support::error_of([&] {
          static_cast<void>(models::load_layer<models::olmoe>(golden_models + "mixtral", 1));
        }).ends_with("config.json: layer 1 is of the family \"mixtral\", asked for is a layer of \"olmoe\""));
}
