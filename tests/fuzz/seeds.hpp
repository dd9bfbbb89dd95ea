// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/packed_bank.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/weight_source.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/io/routing_text.hpp>
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/tuned_table.hpp>

#include "fuzz/model_seeds.hpp"
#include "support/gguf_bytes.hpp"
#include "support/ragged_layer.hpp"
#include "support/scratch_folder.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fuzz {

/// Sound files of our own writers, by target: what the fuzzer starts from. (GGUF is put together byte by byte.)
inline std::map<std::string, std::vector<std::string>> seeds() {
  namespace io = hmoe::io;
  std::map<std::string, std::vector<std::string>> result;
  const support::scratch_folder folder;
  const std::string path = (folder / "seed").string();
  const std::vector<std::byte> bytes(16);

  io::safetensors_writer all;
  for (const auto& traits : io::tensor_types)
    if (io::in_safetensors(traits.type))
      all.add(std::string(traits.name), traits.type, {2},
              std::span(bytes).first(2 / traits.block_values * traits.block_bytes));
  all.set_metadata("format", "pt");
  all.write(path);
  result["safetensors"].push_back(support::contents_of(path));
  io::safetensors_writer().write(path);
  result["safetensors"].push_back(support::contents_of(path));
  const auto layer = support::make_ragged_layer<float>({1, 1, 0});
  io::ragged_checkpoint_writer ragged;
  ragged.add(layer);
  ragged.write(path);
  result["safetensors"].push_back(support::contents_of(path));
  result["manifest"].push_back(*io::safetensors_file(path).metadata(io::ragged_manifest::key));
  result["manifest"].push_back(io::ragged_manifest{}.to_json());

  for (const bool with_biases : {false, true}) {
    using hmoe::experts::biases;
    const hmoe::experts::ffn_weights<float, 1> weights(1, {1, 0}, with_biases ? biases::all : biases::none);
    using bank = hmoe::backends::packed_bank<hmoe::backends::formats::f32, hmoe::experts::relu, 1>;
    const hmoe::moe_layer packed{hmoe::expert_set{bank(hmoe::experts::weights_in_memory(weights), {}),
                                                  hmoe::experts::identity_bank<float>(1, 1)},
                                 hmoe::routing::top_k_router<float>(1, 3, 1)};
    io::packed_checkpoint_writer writer;
    writer.add(packed);
    writer.write(path);
    result["packed"].push_back(support::contents_of(path));
  }

  using io::gguf_type;
  support::gguf_parts parts;
  parts.add_key("general.alignment", gguf_type::u32, support::bytes_of(std::uint32_t{32}));
  parts.add_key("t", gguf_type::text, support::gguf_text("abc"));
  parts.add_key("n", gguf_type::i16, support::bytes_of(std::int16_t{-1}));
  parts.add_key("a", gguf_type::array,
                support::type_bytes(gguf_type::text) + support::bytes_of(std::uint64_t{2}) + support::gguf_text("x") +
                    support::gguf_text(""));
  parts.add_key("b", gguf_type::array,
                support::type_bytes(gguf_type::array) + support::bytes_of(std::uint64_t{1}) +
                    support::type_bytes(gguf_type::u8) + support::bytes_of(std::uint64_t{2}) + "xy");
  parts.add_tensor("w", {2, 2}, 0, 0);
  parts.add_tensor("q", {32}, 8, 32);
  parts.data = std::string(66, '\x01');
  result["gguf"].push_back(parts.bytes());
  result["gguf"].push_back(support::gguf_parts{}.bytes());

  io::routing_log_record<float> record;
  record.experts = 3;
  record.assigned.resize_tokens(2);
  record.assigned.offsets()[1] = 2;
  record.assigned.offsets()[2] = 3;
  record.assigned.resize_entries();
  for (hmoe::index_t e = 0; e < 3; ++e) {
    record.assigned.experts()[e] = e < 2 ? e : 1;
    record.assigned.weights()[e] = 0.5F;
  }
  for (const bool scores : {false, true}) {
    if (scores) {
      record.logits = hmoe::matrix<float>(2, 3);
      record.probabilities = hmoe::matrix<float>(2, 3);
      record.token_ids = {7, 8};
      record.valid = {1, 1};
    }
    io::routing_log_writer<float> writer(path);
    writer.add(record);
    writer.close();
    result["routing_log"].push_back(support::contents_of(path));
    result["routing_text"].push_back(io::to_routing_text(record));
  }
  using hmoe::dispatch::strategy;
  result["tuned_table"].push_back(io::tuned_table_text(
      {"CPU",
       {768, 8, 1234, 2},
       {{1, 1, strategy::per_token, strategy::sorted}, {1, 2.5, strategy::scattered, strategy::blocked}}}));
  result["model"] = model_seeds();
  return result;
}

} // namespace fuzz
