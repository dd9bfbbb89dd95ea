// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/io/packed_checkpoint.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace hmoe;
namespace formats = backends::formats;
using backends::simd;
using io::mapped_bank;
using io::packed_checkpoint;

namespace {
constexpr std::size_t d = 37;
using packed_glu = simd<>::packed_glu<formats::q8, experts::gelu>;
using packed_mlp = simd<>::packed_mlp<formats::bf16, experts::relu>;
using constants_type = experts::constant_bank<float>;
using router_type = routing::top_k_router<float>;

/// GLU experts with biases, one of them of width 0, a constant among them, and an MLP.
auto make_layer() {
  expert_set set{expert_ids{{{0, 2, 4}, {1}, {3, 5}}},
                 experts::glu_bank<float, experts::gelu>(d, {20, 0, 70}, experts::biases::all), constants_type(d),
                 experts::mlp_bank<float, experts::relu>(d, {5, 33})};
  moe_layer layer{std::move(set), router_type(d, 6, 3), dispatch::scattered{}};
  support::random_source random(8);
  layer.visit_parameters([&](const parameter_info&, matrix_view<float> view) { support::fill(random, view, 0.4F); });
  return layer;
}
/// What simd<>::pack makes of one, in two formats.
auto pack(const decltype(make_layer())& layer) {
  const auto& set = layer.experts();
  return layer.with_experts(expert_set{set.ids(), simd<>::pack<formats::q8>(set.bank<0>()), set.bank<1>(),
                                       simd<>::pack<formats::bf16>(set.bank<2>())});
}
auto mapped(const packed_checkpoint& file, std::string_view prefix = "") {
  return io::map_packed_layer(file, prefix, router_type(d, 6, 3), dispatch::scattered{}, mapped_bank<packed_glu>{},
                              constants_type(d), mapped_bank<packed_mlp>{});
}
template <class Layer> std::vector<float> outputs(const Layer& layer) {
  support::random_source random(9);
  const auto x = support::random_matrix<float>(random, 50, d);
  matrix<float> y(50, d);
  layer.forward(context{simd<>{}}, x, y);
  return {y.data(), y.data() + y.size()};
}

packed_values values_of(std::size_t d_model, std::vector<std::size_t> widths, std::span<const std::byte> panels) {
  packed_values values;
  values.d_model = d_model;
  values.widths = std::move(widths);
  values.panels = panels;
  return values;
}

template <class Writer, class Layer>
concept takes_temporary = requires(Writer writer) { writer.add(std::declval<Layer>()); };
static_assert(!takes_temporary<io::packed_checkpoint_writer, decltype(pack(make_layer()))>);
static_assert(!takes_temporary<io::ragged_checkpoint_writer, decltype(make_layer())>);
static_assert(takes_temporary<io::ragged_checkpoint_writer, decltype(make_layer())&>);

/// A sound file as text, and what a file with a change in it does.
const std::string& sound_file() {
  static const std::string contents = [] {
    const support::scratch_folder folder;
    const auto layer = make_layer();
    const auto packed = pack(layer);
    io::packed_checkpoint_writer writer;
    writer.add(packed);
    writer.write((folder / "f").string());
    return support::contents_of(folder / "f");
  }();
  return contents;
}
std::string changed(const std::string& old, const std::string& by) {
  std::string text = sound_file();
  REQUIRE(old.size() == by.size());
  REQUIRE(text.find(old) != std::string::npos);
  return text.replace(text.find(old), old.size(), by);
}
std::string message_of(const std::string& contents, io::checksums which = io::checksums::compare) {
  try {
    static_cast<void>(mapped(packed_checkpoint(std::as_bytes(std::span(contents)), "f", which)));
  } catch (const error& e) {
    return std::string(e.what()).substr(6);
  }
  return "nothing";
}
} // namespace

TEST_CASE("a packed layer that is saved and mapped again has the same bits and works where the file lies") {
  const support::scratch_folder folder;
  const std::string path = (folder / "layers").string();
  auto layer = make_layer();
  const auto first = pack(layer);
  layer.experts().bank<2>().up(0)(0, 0) += 1;
  const auto second = pack(layer);
  {
    io::packed_checkpoint_writer writer;
    writer.add(first, "layers.0.");
    writer.add(second, "layers.1.");
    writer.set_metadata("format", "pt");
    CHECK_THROWS_AS(writer.add(first, "layers.0."), error);
    CHECK_THROWS_AS(writer.set_metadata(io::packed_manifest::key, ""), error);
    writer.write(path);
  }
  const auto expected = outputs(first), others = outputs(second);
  CHECK(expected != others);
  auto file = std::make_unique<packed_checkpoint>(path);
  const auto again = mapped(*file, "layers.0.");
  const std::vector copies(2, again);
  auto other = mapped(*file, "layers.1.");
  const auto panels = again.experts().bank<0>().values().panels;
  CHECK(panels.data() == copies[1].experts().bank<0>().values().panels.data()); // shared, as a file is
  CHECK(panels.data() != first.experts().bank<0>().values().panels.data());
  file.reset(); // the banks keep the file open
  CHECK(outputs(again) == expected);
  CHECK(outputs(copies[1]) == expected);
  CHECK(outputs(other) == others);

  // A mapped layer is saved like any other.
  io::packed_checkpoint_writer writer;
  writer.add(again, "layers.0.");
  writer.add(other, "layers.1.");
  writer.set_metadata("format", "pt");
  writer.write((folder / "again").string());
  CHECK(support::contents_of(folder / "again") == support::contents_of(path));
}

TEST_CASE("a file whose panels begin anywhere is copied") {
  const std::string& text = sound_file();
  std::vector<std::byte> bytes(text.size() + 128);
  for (const std::size_t shift : {8U, 1U}) {
    const auto at =
        std::span(bytes).subspan(64 - reinterpret_cast<std::uintptr_t>(bytes.data()) % 64 + shift, text.size());
    std::memcpy(at.data(), text.data(), text.size());
    const auto layer = mapped(packed_checkpoint(at, "f"));
    const std::byte* panels = layer.experts().bank<0>().values().panels.data();
    CHECK((panels < at.data() || panels >= at.data() + at.size()));
    CHECK(outputs(layer) == outputs(pack(make_layer())));
  }
}

TEST_CASE("files that do not fit the program or themselves are refused") {
  CHECK(message_of(sound_file()) == "nothing");
  // The manifest stands in a text of JSON, so its quotes have a backslash before them.
  const std::string columns = R"(\"panel_columns\":)" + std::to_string(packed_glu::panel_columns);
  std::string other = columns;
  other.back() = other.back() == '4' ? '6' : '4';
  CHECK(message_of(changed(columns, other)).find("f: layer \"\": bank 0 has panels of ") == 0);
  CHECK(message_of(changed("glu.gelu", "glu.silu")) ==
        "f: layer \"\": bank 0 is of the kind \"glu.silu\", asked for is \"glu.gelu\"");
  CHECK(message_of(changed("\"constant", "\"identity")) ==
        "f: layer \"\": bank 1 is of the kind \"identity\", asked for is \"constant\"");
  CHECK(message_of(changed(R"(\"q8\")", R"(\"q4\")")) == "f: layer \"\": bank 0 is stored as \"q4\", asked for is q8");
  CHECK(message_of(changed(R"(\"version\":1)", R"(\"version\":3)")) ==
        "f: its manifest is of version 3, this library reads version 1");
  CHECK(message_of(changed("packed_experts", "packed_expertz")) ==
        "f has no metadata under \"packed_experts\": it is no checkpoint of packed experts");
  CHECK(message_of(changed(R"([{\"kind\")", R"([{\"king\")")) ==
        "f: its manifest: layer \"\": bank 0 has no member \"kind\"");
  CHECK(message_of(changed(R"(\"name\":\"banks.2.panels)", R"(\"name\":\"banks.3.panels)")) ==
        "f has no tensor \"banks.3.panels\"; it has 7 others");
  CHECK(message_of(sound_file().substr(0, sound_file().size() - 1)).find("is said to be at the bytes") !=
        std::string::npos);
  CHECK(message_of(changed("[20,0,70]", "[20,0,79]")).find("packed experts: the panels have ") == 0);
  CHECK(message_of(changed("[20,0,70]", "[2,0,970]")).find("packed experts: the panels have ") == 0);
  CHECK(message_of(changed("[20,0,70]", "[20,0,10]")).find("packed experts: the panels have ") == 0);
  CHECK(message_of(changed("[5,33]", "[2e44]")).find("is a real number, needed is a whole number") !=
        std::string::npos);
  CHECK(message_of(changed(R"(\"d_model\":37)", R"(\"d_model\":10)")).find("packed experts: the panels have ") == 0);
  CHECK(message_of(changed("[3,5]", "[2,5]")) == "expert 2 is in bank 0 and in bank 2");

  // A bit of each kind of tensor. Without checksums nobody sees it.
  const io::safetensors_file file(std::as_bytes(std::span(sound_file())), "f");
  for (const io::stored_tensor& tensor : file.tensors()) {
    std::string damaged = sound_file();
    const auto at =
        static_cast<std::size_t>(tensor.bytes().data() - reinterpret_cast<const std::byte*>(sound_file().data()));
    damaged[at + tensor.bytes().size() / 2] ^= 1;
    CHECK(message_of(damaged).find("f is damaged: the checksum of tensor \"" + tensor.name() + "\" is ") == 0);
    CHECK(message_of(damaged, io::checksums::skip) == "nothing");
  }
}

TEST_CASE("what is asked for and not in the file, and banks that a layer cannot have, are refused") {
  const packed_checkpoint file(std::as_bytes(std::span(sound_file())), "f");
  CHECK_THROWS_WITH(static_cast<void>(file.layer("x")), "hmoe: f has no layer with the prefix \"x\"; it has 1 layers");
  CHECK_THROWS_WITH(static_cast<void>(file.bank<packed_glu>("", 3)),
                    "hmoe: f: layer \"\" has 3 banks, asked for is bank 3");
  constants_type two(d, 2);
  CHECK_THROWS_WITH(file.read_parameters("", 1, two), "hmoe: f: layer \"\": bank 1 has 1 experts, asked for are 2");
  CHECK_THROWS_AS(file.read_parameters("", 0, two), error);
  router_type small(d, 5, 3);
  CHECK_THROWS_AS(file.read_parameters("", packed_checkpoint::no_bank, small), error);
  CHECK_THROWS_WITH(static_cast<void>(io::map_packed_layer(file, "", router_type(d, 6, 3), dispatch::scattered{},
                                                           mapped_bank<packed_glu>{})),
                    "hmoe: the layer with the prefix \"\" has 3 banks, given are 1");
  // Values that nobody has packed.
  const std::vector<float> panels(16);
  const auto bytes = std::as_bytes(std::span(panels));
  CHECK_THROWS_AS(packed_mlp(values_of(1, {}, {}), {}), error);
  CHECK_THROWS_AS(packed_mlp(values_of(0, {1}, {}), {}), error);
  CHECK_THROWS_WITH(packed_mlp(values_of(1, {1}, bytes.subspan(1)), {}), doctest::Contains("multiple of 64 bytes"));
  CHECK_THROWS_AS(packed_mlp(values_of(std::size_t{1} << 60U, {1}, {}), {}), error);
}
