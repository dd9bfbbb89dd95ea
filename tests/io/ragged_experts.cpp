// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_experts.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/ragged_layer.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

using namespace hmoe;

TEST_CASE("experts of a ragged checkpoint as packing reads them, constants of width 0 among them") {
  using bank = experts::glu_bank<float, experts::silu>;
  moe_layer layer{expert_set{expert_ids{{{0, 2, 3}, {1}}}, bank(4, {3, 0, 1}), bank(4, {0}, experts::biases::all)},
                  routing::top_k_router<float>(4, 4, 2)};
  float next = 0;
  layer.visit_parameters([&](const parameter_info&, matrix_view<float> values) {
    for (std::size_t r = 0; r < values.rows(); ++r)
      for (float& value : values.row(r))
        value = next += 1;
  });
  const support::scratch_folder folder;
  const std::string path = (folder / "f").string();
  const auto other = support::make_ragged_layer<float>();
  io::ragged_checkpoint_writer writer;
  writer.add(layer, "l.");
  writer.add(other, "other.");
  writer.write(path);

  const io::safetensors_file file(path);
  const auto source = io::ragged_experts<2>(file, "l.", "glu.silu");
  REQUIRE(source.size() == 4);
  CHECK(source.has_biases());
  const auto& set = layer.experts();
  for (std::size_t e = 0; e < 4; ++e) {
    REQUIRE(source.width(e) == set.width(e));
    const auto& weights = (e == 1 ? set.bank<1>() : set.bank<0>()).weights();
    const std::size_t local = set.local_id(e);
    for (std::size_t m = 0; m < 3; ++m) {
      const matrix_view<const float> all = m < 2 ? weights.lane(local, m) : weights.output(local);
      matrix<float> values(all.rows(), all.cols()), bias(all.rows(), 1);
      source.read(e, m, 0, values);
      source.read_bias(e, m, 0, bias);
      for (std::size_t r = 0; r < all.rows(); ++r) {
        for (std::size_t c = 0; c < all.cols(); ++c)
          CHECK(values(r, c) == all(r, c));
        CHECK(bias(r, 0) == (e == 1 && m == 2 ? weights.output_bias(local)(0, r) : 0));
      }
    }
  }
  CHECK_THROWS_WITH(static_cast<void>(io::ragged_experts<2>(file, "x.", "glu.silu")),
                    doctest::Contains(" has no layer with the prefix \"x.\"; it has 2 layers"));
  CHECK_THROWS_WITH(static_cast<void>(io::ragged_experts<2>(file, "l.", "glu.gelu")),
                    doctest::Contains("layer \"l.\": expert 0 is of the kind \"glu.silu\", asked for is \"glu.gelu\""));
  CHECK_THROWS_WITH(static_cast<void>(io::ragged_experts<2>(file, "other.", "glu.silu")),
                    doctest::Contains("layer \"other.\": expert 3 is of the kind \"constant\", asked for is"));
  CHECK_THROWS_AS(static_cast<void>(io::ragged_experts<1>(file, "l.", "glu.silu")), error);
}
