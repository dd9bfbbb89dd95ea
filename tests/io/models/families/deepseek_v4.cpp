// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/io/models/families/deepseek_v4.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <string>

TEST_CASE("a table of hashed layers names experts that are there, by whole numbers") {
  namespace models = hmoe::io::models;
  using family = models::deepseek_v4_hash;
  const models::model_config config(
      R"({"model_type": "deepseek_v4", "num_hidden_layers": 1, "hidden_size": 2, "n_routed_experts": 2,
          "moe_intermediate_size": 1, "num_experts_per_tok": 1, "vocab_size": 3, "routed_scaling_factor": 1})",
      "c.json");
  const auto error_of_last_id = [&](float id) {
    const support::scratch_folder folder;
    const std::string path = (folder / "model.safetensors").string(), block = "model.layers.0.ffn.";
    hmoe::io::safetensors_writer writer;
    const hmoe::matrix<float> square(2, 2), row(1, 2), column(2, 1);
    hmoe::matrix<float> table(3, 1);
    table(2, 0) = id;
    writer.add<float>(block + "gate.weight", square.view());
    writer.add<float>(block + "gate.tid2eid", table.view());
    for (const char* expert : {"experts.0", "experts.1", "shared_experts"}) {
      for (const char* lane : {".w1.weight", ".w3.weight"})
        writer.add<float>(block + expert + lane, row.view());
      writer.add<float>(block + expert + ".w2.weight", column.view());
    }
    writer.write(path);
    const hmoe::io::sharded_safetensors file(path);
    const auto description = family::describe(config, 0);
    const models::layer_tensors tensors(file, description, family::lanes);
    return support::error_of([&] { static_cast<void>(family::make_router(config, description, tensors)); });
  };
  CHECK(error_of_last_id(1) == "no error");
  for (const float id : {2.0F, -1.0F, 0.5F}) {
    const std::string error = error_of_last_id(id);
    CHECK(error.find("\"model.layers.0.ffn.gate.tid2eid\" names expert ") != std::string::npos);
    CHECK(error.ends_with("of 2"));
  }
}
