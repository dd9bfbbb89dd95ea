// SPDX-License-Identifier: MIT
#include "checkpoint.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

namespace language_model {
namespace {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

struct header {
  std::array<char, 8> magic{'H', 'M', 'O', 'E', 'C', 'K', 'P', 'T'};
  std::uint32_t version = 1;
  std::uint32_t scalar_bytes = sizeof(float);
  std::uint64_t json_bytes = 0;
  std::uint64_t scalars = 0;
  std::uint64_t sum = 0;
};
static_assert(sizeof(header) == 40, "the header has no padding");

std::string_view bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

bool is_description(const nlohmann::json& json) {
  if (!json.is_object() || !json.contains("config") || !json.contains("state") || !json.contains("tensors") ||
      !json.at("config").is_object() || !json.at("state").is_object() || !json.at("tensors").is_array())
    return false;
  return std::ranges::all_of(json.at("tensors"), [](const nlohmann::json& entry) {
    return entry.is_object() && entry.contains("name") && entry.at("name").is_string() && entry.contains("size") &&
           entry.at("size").is_number_unsigned();
  });
}

} // namespace

const std::vector<float>& checkpoint::find(const std::string& name, std::size_t size) const {
  for (const auto& t : tensors) {
    if (t.name != name)
      continue;
    hmoe::require(t.values.size() == size, "tensor ", name, " of the checkpoint has ", t.values.size(),
                  " values where ", size, " are expected");
    return t.values;
  }
  throw hmoe::error("the checkpoint has no tensor " + name);
}

void save_checkpoint(const std::filesystem::path& path, const checkpoint& saved) {
  nlohmann::json description{{"config", saved.config}, {"state", saved.state}, {"tensors", nlohmann::json::array()}};
  header h;
  for (const auto& t : saved.tensors) {
    description["tensors"].push_back({{"name", t.name}, {"size", t.values.size()}});
    h.scalars += t.values.size();
  }
  const std::string json = description.dump();
  h.json_bytes = json.size();
  checksum sum;
  sum.add(json);
  for (const auto& t : saved.tensors)
    sum.add(bytes_of(t.values));
  h.sum = sum.value();

  write_file(path, [&](hmoe::io::file_writer& file) {
    const auto put = [&](std::string_view bytes) { file.write(std::as_bytes(std::span(bytes))); };
    put({reinterpret_cast<const char*>(&h), sizeof h});
    put(json);
    for (const auto& t : saved.tensors)
      put(bytes_of(t.values));
  });
}

checkpoint load_checkpoint(const std::filesystem::path& path) {
  const std::string file = read_file(path);
  const std::string name = path.string();
  const header expected;
  header h;
  hmoe::require(file.size() >= sizeof h, name, " is no checkpoint: it has only ", file.size(), " bytes");
  std::memcpy(&h, file.data(), sizeof h);
  hmoe::require(h.magic == expected.magic, name, " is no checkpoint of this program: it does not start with ",
                std::string_view(expected.magic.data(), expected.magic.size()));
  hmoe::require(h.version == expected.version && h.scalar_bytes == expected.scalar_bytes, name,
                " has checkpoint version ", h.version, " with scalars of ", h.scalar_bytes,
                " bytes; this program reads version ", expected.version, " with ", expected.scalar_bytes);
  const std::size_t body = file.size() - sizeof h;
  hmoe::require(h.json_bytes <= body && h.scalars == (body - h.json_bytes) / sizeof(float) &&
                    (body - h.json_bytes) % sizeof(float) == 0,
                name, " is truncated or has bytes too many: ", file.size(), " bytes, but its header announces ",
                sizeof h, " + ", h.json_bytes, " + ", h.scalars, " scalars");
  hmoe::require(checksum().add(std::string_view(file).substr(sizeof h)).value() == h.sum, name,
                " is damaged: its checksum does not match its contents");

  auto description = nlohmann::json::parse(file.substr(sizeof h, h.json_bytes), nullptr, false);
  hmoe::require(is_description(description), name, " is damaged: its description is not what this program writes");
  std::uint64_t scalars = 0;
  for (const auto& entry : description.at("tensors")) {
    const auto size = entry.at("size").get<std::uint64_t>();
    hmoe::require(size <= h.scalars - scalars, name, " announces tensors of more than the ", h.scalars,
                  " scalars that it has: ", entry.at("name").dump(), " should have ", size);
    scalars += size;
  }
  checkpoint loaded{std::move(description.at("config")), std::move(description.at("state")), {}};
  std::size_t at = sizeof h + h.json_bytes;
  for (const auto& entry : description.at("tensors")) {
    checkpoint::tensor t{entry.at("name"), std::vector<float>(entry.at("size").get<std::size_t>())};
    if (!t.values.empty())
      std::memcpy(t.values.data(), file.data() + at, t.values.size() * sizeof(float));
    at += t.values.size() * sizeof(float);
    loaded.tensors.push_back(std::move(t));
  }
  return loaded;
}

void require_same_config(const nlohmann::json& found, const nlohmann::json& expected, const std::string& where) {
  if (found == expected)
    return;
  std::string differences;
  for (const auto& change : nlohmann::json::diff(found, expected)) {
    nlohmann::json::json_pointer at(change.at("path").get<std::string>());
    if (!at.empty() && at.back() == "-")
      at.pop_back(); // a list that is longer on one side: the list
    const auto shown = [&](const nlohmann::json& config) {
      return config.contains(at) ? config.at(at).dump() : std::string("nothing");
    };
    differences += "\n  " + at.to_string() + ": " + shown(found) + " there, " + shown(expected) + " now";
  }
  throw hmoe::error(where + " belongs to another configuration:" + differences);
}

} // namespace language_model
