// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

using namespace hmoe::io::models;
using hmoe::matrix;

namespace {
constexpr std::size_t d = 3, h = 2, experts = 2;

/// The weight of row r and column c of expert e's matrix m: all different.
float weight(std::size_t e, std::size_t m, std::size_t r, std::size_t c) {
  return static_cast<float>(1000 * e + 100 * m + 10 * r + c);
}
constexpr auto any_value = [](std::size_t, std::size_t) { return 1.0F; };
/// Tensors of a file to come, [rows x cols], made by a function of row and column.
class planted_file {
public:
  template <class F> planted_file& add(const std::string& name, std::vector<std::size_t> shape, F&& value) {
    std::size_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i)
      rows *= shape[i];
    tensor& planted = tensors_.emplace_back(name, std::move(shape), matrix<float>(0, 0));
    planted.values = matrix<float>(rows, planted.shape.back());
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < planted.values.cols(); ++c)
        planted.values(r, c) = value(r, c);
    return *this;
  }
  /// What is read from the file stays valid when the folder is gone.
  [[nodiscard]] hmoe::io::sharded_safetensors file() const {
    const support::scratch_folder folder;
    const std::string path = (folder / "model.safetensors").string();
    hmoe::io::safetensors_writer writer;
    for (const tensor& planted : tensors_)
      writer.add(planted.name, hmoe::matrix_view<const float>(planted.values.view()), planted.shape);
    writer.write(path);
    return hmoe::io::sharded_safetensors(path);
  }

private:
  struct tensor {
    tensor(std::string n, std::vector<std::size_t> s, matrix<float> v)
        : name(std::move(n)), shape(std::move(s)), values(std::move(v)) {}
    std::string name;
    std::vector<std::size_t> shape;
    matrix<float> values;
  };
  std::deque<tensor> tensors_;
};
planted_file with_router() {
  planted_file result;
  result.add("model.l.gate", {experts, d}, [](std::size_t r, std::size_t c) { return weight(9, 0, r, c); });
  return result;
}
planted_file numbered() {
  planted_file result = with_router();
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t m = 0; m < 3; ++m)
      result.add("model.l.experts." + std::to_string(e) + "." + "gud"[m] + ".weight",
                 m == 2 ? std::vector{d, h} : std::vector{h, d},
                 [=](std::size_t r, std::size_t c) { return weight(e, m, r, c); });
  return result;
}
layer_description description_of(expert_names names) {
  return {.d_model = d,
          .experts = experts,
          .width = h,
          .names = {{.block = "l.", .router = {{"router.weight", "gate", experts, d}}, .experts = std::move(names)}}};
}
void check_weights(const planted_file& planted, const layer_description& layer, bool biases) {
  const hmoe::io::sharded_safetensors file = planted.file();
  const layer_tensors tensors(file, layer, 2);
  CHECK(tensors.prefix() == "model.l.");
  hmoe::experts::ffn_weights<float, 2> bank(d, {h, h},
                                            biases ? hmoe::experts::biases::all : hmoe::experts::biases::none);
  tensors.read_experts(bank, 2);
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t i = 0; i < h; ++i)
      for (std::size_t c = 0; c < d; ++c) {
        CHECK(bank.lane(e, 0)(i, c) == weight(e, 0, i, c));
        CHECK(bank.lane(e, 1)(i, c) == weight(e, 1, i, c));
        CHECK(bank.output(e)(c, i) == weight(e, 2, c, i));
        if (!biases)
          continue;
        CHECK(bank.lane_bias(e, 0)(0, i) == weight(e, 3, 0, i));
        CHECK(bank.lane_bias(e, 1)(0, i) == weight(e, 4, 0, i));
        CHECK(bank.output_bias(e)(0, c) == weight(e, 5, 0, c));
      }
}
std::string layer_refusal(const planted_file& planted, const layer_description& layer) {
  const hmoe::io::sharded_safetensors file = planted.file();
  const std::string message = support::error_of([&] { const layer_tensors tensors(file, layer, 2); });
  const std::size_t at = message.find("model.safetensors");
  return at == message.npos ? message : message.substr(at + 17);
}
} // namespace

TEST_CASE("the same weights from tensors of one matrix each, one above the other, and in turns with biases") {
  check_weights(numbered(), description_of(numbered_experts("g", "u", "d")), false);

  planted_file stacked = with_router();
  stacked.add("model.l.experts.gate_up_proj", {experts, 2 * h, d},
              [](std::size_t r, std::size_t c) { return weight(r / (2 * h), r % (2 * h) / h, r % h, c); });
  stacked.add("model.l.experts.down_proj", {experts, d, h},
              [](std::size_t r, std::size_t c) { return weight(r / d, 2, r % d, c); });
  check_weights(stacked, description_of(fused_experts()), false);

  planted_file turns = with_router();
  turns.add("model.l.gu", {experts, d, 2 * h},
            [](std::size_t r, std::size_t c) { return weight(r / d, c % 2, c / 2, r % d); });
  turns.add("model.l.gu_bias", {experts, 2 * h},
            [](std::size_t r, std::size_t c) { return weight(r, 3 + c % 2, 0, c / 2); });
  turns.add("model.l.d", {experts, h, d}, [](std::size_t r, std::size_t c) { return weight(r / h, 2, c, r % h); });
  turns.add("model.l.d_bias", {experts, d}, [](std::size_t r, std::size_t c) { return weight(r, 5, 0, c); });
  check_weights(turns,
                description_of({.lanes = {"gu"},
                                .down = "d",
                                .order = lane_order::interleaved,
                                .lanes_transposed = true,
                                .down_transposed = true,
                                .lane_biases = {"gu_bias"},
                                .down_bias = "d_bias"}),
                true);
}

TEST_CASE("tensors that are missing or surplus are listed, others are named with what they are and should be") {
  const layer_description layer = description_of(numbered_experts("g", "u", "d"));
  planted_file file = with_router();
  file.add("model.l.experts.0.g.weight", {h, d}, any_value);
  file.add("model.l.extra", {1}, any_value).add("model.k.other", {1}, any_value);
  CHECK(layer_refusal(file, layer) ==
        " and the layer \"model.l.\" that config.json describes disagree; 5 tensors are missing: "
        "\"model.l.experts.0.d.weight\", \"model.l.experts.0.u.weight\", \"model.l.experts.1.d.weight\", "
        "\"model.l.experts.1.g.weight\", \"model.l.experts.1.u.weight\"; 1 tensor is surplus: \"model.l.extra\"");
  CHECK(layer_refusal(planted_file().add("x", {1}, any_value), layer) ==
        " and the layer \"model.l.\" that config.json describes disagree; 1 tensor is missing: \"model.l.gate\"");

  layer_description other = layer;
  other.width = h + 1;
  CHECK(layer_refusal(numbered(), other) ==
        ": tensor \"model.l.experts.0.g.weight\" is F32 [2, 3], needed is F32 [3, 3] "
        "or another type of that kind");
  // As many experts as no file holds: the router is looked at first, so that nothing is made for each of them.
  other = layer;
  other.experts = other.names[0].router[0].rows = std::size_t{1} << 24U;
  CHECK(layer_refusal(numbered(), other) ==
        ": tensor \"model.l.gate\" is F32 [2, 3], needed is a matrix of 16777216 x 3");
}

TEST_CASE("of several releases' names those are taken of which the file has most") {
  layer_description layer = description_of(fused_experts());
  layer.names.push_back(description_of(numbered_experts("g", "u", "d")).names[0]);
  check_weights(numbered(), layer, false);
}
