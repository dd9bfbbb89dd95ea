// SPDX-License-Identifier: MIT
#include <hmoe/io/ragged_shards.hpp>

#include "support/error_of.hpp"
#include "support/ragged_layer.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace {
namespace shards_io = hmoe::io;
using shard_part = std::vector<bool>;

template <class Layer> std::vector<float> shard_weights(const Layer& layer) {
  std::vector<float> all;
  layer.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<const float> values) {
    all.insert(all.end(), values.data(), values.data() + values.size());
  });
  return all;
}
template <class Layer>
void write_shards(const Layer& layer, const support::scratch_folder& folder, const std::vector<shard_part>& parts) {
  for (std::size_t s = 0; s < parts.size(); ++s) {
    shards_io::ragged_checkpoint_writer writer;
    writer.add_part(layer, {parts[s], s == 0}, "l.", {"pruned", "a method", "a model"});
    writer.write((folder / shards_io::shard_name(s, parts.size())).string());
  }
  shards_io::write_shard_index(folder.path().string(), parts.size());
}
std::string refused_shards(const support::scratch_folder& folder) {
  auto layer = support::make_ragged_layer<float>();
  layer.experts().bank<0>().gate(0)(0, 0) = 77;
  const auto before = shard_weights(layer);
  const std::string text = support::error_of(
      [&] { shards_io::load_ragged_shards(shards_io::sharded_safetensors(folder.path().string()), layer, "l."); });
  CHECK(shard_weights(layer) == before);
  return text;
}
bool says(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }
} // namespace

TEST_CASE("a layer of unequal experts in three files comes back bit for bit, whatever order experts have in them") {
  const support::scratch_folder folder;
  const auto layer = support::make_ragged_layer<float>();
  // One file has nothing of the layer.
  write_shards(layer, folder,
               {{false, true, true, false, false, false, true},
                shard_part(7, false),
                {true, false, false, true, true, true, false}});
  CHECK(shards_io::shard_name(1, 3) == "model-00002-of-00003.safetensors");
  CHECK(shards_io::shard_name(123456, 200000) == "model-123457-of-200000.safetensors");
  const shards_io::sharded_safetensors files(folder.path().string());
  CHECK(files.files().size() == 3);
  const shards_io::ragged_layer stored = shards_io::read_ragged_shards(files, "l.");
  CHECK(stored.widths() == std::vector<std::size_t>{3, 0, 1, 0, 0, 0, 0});
  CHECK(stored.reason == shards_io::ragged_reason{"pruned", "a method", "a model"});
  CHECK(stored.experts[2].kind == "glu.silu");
  auto loaded = support::make_ragged_layer<float>();
  loaded.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values.data()[i] = 0;
  });
  shards_io::load_ragged_shards(files, loaded, "l.");
  CHECK(shard_weights(loaded) == shard_weights(layer));
}

TEST_CASE("experts without tensors come back from a file that has nothing else") {
  const support::scratch_folder folder;
  const auto layer = support::make_ragged_layer<float>();
  // Expert 5 has width 0 and no biases, expert 6 is an identity.
  write_shards(layer, folder,
               {{true, true, true, true, true, false, false}, {false, false, false, false, false, true, true}});
  auto loaded = support::make_ragged_layer<float>();
  loaded.experts().bank<0>().gate(0)(0, 0) = 77;
  shards_io::load_ragged_shards(shards_io::sharded_safetensors(folder.path().string()), loaded, "l.");
  CHECK(shard_weights(loaded) == shard_weights(layer));
}

TEST_CASE("files that do not make a layer together are refused") {
  const auto layer = support::make_ragged_layer<float>();
  const shard_part first{true, true, true, false, false, false, false},
      second{false, false, false, true, true, true, true};
  {
    const support::scratch_folder folder;
    shard_part none = second;
    none[4] = false;
    write_shards(layer, folder, {first, none});
    CHECK(says(refused_shards(folder), "layer \"l.\": expert 4 is in none of the files"));
  }
  {
    const support::scratch_folder folder;
    shard_part twice = second;
    twice[2] = true;
    const std::string text = support::error_of([&] { write_shards(layer, folder, {first, twice}); });
    CHECK(says(text, "model-00002-of-00002.safetensors: tensor \"l.experts.2.down\" is in another file, too"));
    // An identity has no tensor that could come twice.
    twice = first;
    twice[6] = true;
    write_shards(layer, folder, {twice, second});
    CHECK(says(refused_shards(folder), "expert 6 is in two files"));
  }
  {
    const support::scratch_folder folder;
    write_shards(layer, folder, {first, shard_part(7, false)});
    const auto wider = support::make_ragged_layer<float>({3, 2, 0});
    shards_io::ragged_checkpoint_writer writer;
    writer.add_part(wider, {second, false}, "l.");
    writer.write((folder / shards_io::shard_name(1, 2)).string());
    shards_io::write_shard_index(folder.path().string(), 2);
    CHECK(says(refused_shards(folder), ": expert 2 has width 2 in "));
    CHECK(says(refused_shards(folder), ", 1 in a file before"));
  }
  const support::scratch_folder folder;
  shards_io::ragged_checkpoint_writer writer;
  CHECK(support::error_of([&] { writer.add_part(layer, {{true, true}, true}); }) ==
        "hmoe: a part of a layer of 7 experts says of 2 whether it has them");
  write_shards(support::make_ragged_layer<float>({3, 2, 0}), folder, {first, second});
  CHECK(says(refused_shards(folder), "expert 2 has width 2, that of the layer to load 1"));
}
