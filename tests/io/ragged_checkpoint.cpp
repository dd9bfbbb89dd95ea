// SPDX-License-Identifier: MIT
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include "support/ragged_layer.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace io = hmoe::io;
using hmoe::io::ragged_checkpoint_writer;
using hmoe::io::safetensors_file;

namespace {
template <class Layer> auto bits_of(const Layer& layer) {
  std::vector<std::pair<std::string, std::string>> result;
  using T = typename Layer::value_type;
  layer.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<const T> values) {
    std::string bytes;
    for (std::size_t r = 0; r < values.rows(); ++r)
      bytes.append(reinterpret_cast<const char*>(values.row(r).data()), values.cols() * sizeof(T));
    result.emplace_back(info.full_name(), bytes);
  });
  return result;
}
/// What loading into the layer is refused with, `hmoe: FILE` in front of it left out; then no value has changed.
template <class Layer> std::string refused(const safetensors_file& file, Layer layer, const char* prefix = "") {
  const auto before = bits_of(layer);
  std::string message = "nothing";
  try {
    io::load_ragged_layer(file, layer, prefix);
  } catch (const hmoe::error& e) {
    message = std::string(e.what()).substr(6 + file.name().size());
  }
  CHECK(bits_of(layer) == before);
  return message;
}
/// The example's layer, written and read.
struct written {
  written() {
    ragged_checkpoint_writer writer;
    writer.add(layer, "l.0.", {"pruned", "HEAPr", "a model"});
    writer.write(path);
  }
  support::scratch_folder folder;
  std::string path = (folder / "f.safetensors").string();
  decltype(support::make_ragged_layer<float>()) layer = support::make_ragged_layer<float>();
};
} // namespace

TEST_CASE_TEMPLATE("a layer comes back bit for bit", T, float, double) {
  const support::scratch_folder folder;
  const std::string path = (folder / "f.safetensors").string();
  auto layer = support::make_ragged_layer<T>();
  layer.experts().template bank<0>().gate(0)(0, 0) = -T(0);
  layer.experts().template bank<0>().gate(0)(0, 1) = std::numeric_limits<T>::denorm_min();
  layer.experts().template bank<0>().gate(0)(0, 2) = -std::numeric_limits<T>::quiet_NaN();
  auto second = support::make_ragged_layer<T>({2, 7, 1});
  ragged_checkpoint_writer writer;
  writer.add(layer, "layers.0.");
  writer.add(second, "layers.1.", {"pruned", "HEAPr", "a model"});
  writer.set_metadata("format", "pt");
  writer.write(path);

  const safetensors_file file(path);
  CHECK(*file.metadata("format") == "pt");
  auto back = support::make_ragged_layer<T>();
  hmoe::set_zero(back);
  io::load_ragged_layer(file, back, "layers.0.");
  CHECK(bits_of(back) == bits_of(layer));
  auto other = support::make_ragged_layer<T>({2, 7, 1});
  hmoe::set_zero(other);
  io::load_ragged_layer(file, other, "layers.1.");
  CHECK(bits_of(other) == bits_of(second));

  const io::ragged_manifest manifest = io::read_ragged_manifest(file);
  CHECK(manifest.layers[1].widths() == std::vector<std::size_t>{2, 0, 7, 0, 0, 1, 0});
  CHECK(manifest.layers[1].reason.by == "HEAPr");
  CHECK(manifest.layers[0].experts[1].tensors == std::vector<std::string>{"down_bias"});
  CHECK(manifest.layers[0].experts[5].tensors.empty());
  CHECK(manifest.layers[0].tensors == std::vector<std::string>{"router.weight", "router.selection_bias"});
}

TEST_CASE("a float layer widens into a double one, and not the other way round") {
  const written example;
  const safetensors_file file(example.path);
  auto wide = support::make_ragged_layer<double>();
  hmoe::set_zero(wide);
  io::load_ragged_layer(file, wide, "l.0.");
  CHECK(bits_of(wide) == bits_of(support::make_ragged_layer<double>()));

  ragged_checkpoint_writer writer;
  writer.add(wide);
  writer.write(example.path);
  CHECK(refused(safetensors_file(example.path), example.layer) ==
        ": layer \"\": tensor \"experts.0.gate\" is F64 [3, 4], which F32 does not hold exactly");
}

TEST_CASE("banks on the caller's memory and kinds of all sorts") {
  const support::scratch_folder folder;
  const std::string path = (folder / "f.safetensors").string();
  hmoe::matrix<float> up(3, 9), down(5, 3);
  up(2, 5) = 7;
  down(4, 2) = 8;
  using bank = hmoe::experts::mlp_bank<float, hmoe::experts::relu>;
  const auto make = [&] {
    std::vector<hmoe::experts::ffn_tensors<float, 1>> views(1);
    views[0].lanes[0] = up.view().column_block(1, 5);
    views[0].output = down.view();
    return hmoe::moe_layer{hmoe::expert_set{bank(hmoe::experts::ffn_weights<float, 1>(std::move(views))),
                                            hmoe::experts::low_rank_bank<float>(5, {2})},
                           hmoe::routing::top_k_router<float>(5, 2, 1)};
  };
  ragged_checkpoint_writer writer;
  const auto layer = make();
  writer.add(layer);
  writer.write(path);
  auto back = make();
  hmoe::set_zero(back);
  REQUIRE(up(2, 5) == 0);
  io::load_ragged_layer(safetensors_file(path), back);
  CHECK(up(2, 5) == 7);
  CHECK(down(4, 2) == 8);
}

TEST_CASE("what does not fit is refused before anything is written") {
  const written example;
  const safetensors_file file(example.path);
  CHECK(refused(file, example.layer, "l.1.") == " has no layer with the prefix \"l.1.\"; it has 1 layers");
  CHECK(refused(file, support::make_ragged_layer<float>({3, 2, 0}), "l.0.") ==
        ": layer \"l.0.\": expert 2 has width 1, that of the layer to load 2");
  using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  using other_bank = hmoe::experts::glu_bank<float, hmoe::experts::gelu>;
  const std::vector<std::size_t> widths{3, 0, 1, 0, 0, 0, 0};
  const auto of = [](auto experts, auto router) { return hmoe::moe_layer{hmoe::expert_set{experts}, router}; };
  const hmoe::routing::top_k_router<float> router(4, 7, 1);
  CHECK(refused(file, of(bank(4, {1, 2}), hmoe::routing::top_k_router<float>(4, 2, 1)), "l.0.") ==
        ": layer \"l.0.\" has 7 experts, the layer to load 2");
  CHECK(refused(file, of(bank(3, widths), hmoe::routing::top_k_router<float>(3, 7, 1)), "l.0.") ==
        ": layer \"l.0.\" has d_model 4, the layer to load 3");
  CHECK(refused(file, of(other_bank(4, widths), router), "l.0.") ==
        ": layer \"l.0.\": expert 0 is of the kind \"glu.silu\", that of the layer to load \"glu.gelu\"");

  // The same experts with another router, and with biases.
  using namespace hmoe;
  const auto with = [&](experts::biases kept, experts::biases vectors) {
    return moe_layer{expert_set{expert_ids{{{0, 2, 5}, {1, 4}, {3}, {6}}}, bank(4, {3, 1, 0}, kept),
                                bank(4, {0, 0}, vectors), experts::constant_bank<float>(4),
                                experts::identity_bank<float>(4)},
                     router};
  };
  CHECK(refused(file, with(experts::biases::none, experts::biases::all), "l.0.") ==
        ": layer \"l.0.\" does not fit the layer to load; 1 tensor is not in the layer: \"router.selection_bias\"");
  CHECK(refused(file, with(experts::biases::none, experts::biases::none), "l.0.") ==
        ": layer \"l.0.\" does not fit the layer to load; 3 tensors are not in the layer: \"experts.1.down_bias\", "
        "\"experts.4.down_bias\", \"router.selection_bias\"");
  io::safetensors_writer transposed;
  transposed.set_metadata(io::ragged_manifest::key, *file.metadata(io::ragged_manifest::key));
  for (const io::stored_tensor& tensor : file.tensors())
    transposed.add(tensor.name(), tensor.type(),
                   tensor.name() == "l.0.router.weight" ? std::vector<std::size_t>{4, 7}
                                                        : std::vector<std::size_t>{tensor.rows(), tensor.cols()},
                   tensor.bytes());
  const std::string path = (example.folder / "transposed").string();
  transposed.write(path);
  auto other_values = example.layer;
  hmoe::set_zero(other_values); // loaded before the router, the experts would change
  CHECK(refused(safetensors_file(path), other_values, "l.0.") ==
        ": tensor \"l.0.router.weight\" is F32 [4, 7], needed is a matrix of 7 x 4");
  CHECK(refused(file, with(experts::biases::all, experts::biases::all), "l.0.")
            .starts_with(
                ": layer \"l.0.\" does not fit the layer to load; 7 tensors are missing: \"experts.0.gate_bias\""));
}

TEST_CASE("a manifest that disagrees with its file is refused") {
  const written example;
  const safetensors_file file(example.path);
  const std::string manifest = *file.metadata(io::ragged_manifest::key);
  const std::string changed_path = (example.folder / "changed").string();
  const auto refused_with = [&](const std::string& old, const std::string& by, const char* left_out = "") {
    io::safetensors_writer writer;
    std::string text = manifest;
    if (!old.empty()) {
      REQUIRE(text.find(old) != std::string::npos);
      text.replace(text.find(old), old.size(), by);
    }
    writer.set_metadata(io::ragged_manifest::key, text);
    for (const io::stored_tensor& tensor : file.tensors())
      if (tensor.name() != left_out)
        writer.add(tensor.name(), tensor.type(), {tensor.shape().begin(), tensor.shape().end()}, tensor.bytes());
    writer.write(changed_path);
    try {
      static_cast<void>(io::read_ragged_manifest(safetensors_file(changed_path)));
    } catch (const hmoe::error& e) {
      return std::string(e.what()).substr(6 + changed_path.size());
    }
    return std::string("nothing");
  };
  CHECK(refused_with("", "") == "nothing");
  CHECK(refused_with("", "", "l.0.experts.0.up") ==
        " and its manifest disagree; 1 tensor is missing: \"l.0.experts.0.up\"");
  CHECK(refused_with("[\"gate\",\"up\",\"down\"]", "[\"gate\",\"up\"]") ==
        " and its manifest disagree; 1 tensor is not in the manifest: \"l.0.experts.0.down\"");
  CHECK(refused_with("[\"gate\",\"up\",\"down\"]", "[\"gate\",\"up\",\"down\",\"up\"]") ==
        ": its manifest has the tensor \"l.0.experts.0.up\" twice");
  CHECK(refused_with("\"F32\"", "\"BF16\"") ==
        ": tensor \"l.0.experts.0.gate\" is F32 [3, 4], its expert's format is \"BF16\"");
  // Tensors of other layers are nobody's business.
  CHECK(refused_with("\"l.0.\"", "\"l.1.\"").starts_with(" and its manifest disagree; 12 tensors are missing"));
  io::safetensors_writer plain;
  plain.write(changed_path);
  CHECK_THROWS_WITH(static_cast<void>(io::read_ragged_manifest(safetensors_file(changed_path))),
                    ("hmoe: " + changed_path +
                     " has no metadata under \"ragged_experts\": it is no checkpoint of "
                     "unequal experts")
                        .c_str());
  ragged_checkpoint_writer writer;
  writer.add(example.layer);
  CHECK_THROWS_WITH(writer.add(example.layer), "hmoe: a layer with the prefix \"\" was added before");
  CHECK_THROWS_AS(writer.set_metadata("ragged_experts", ""), hmoe::error);
}
