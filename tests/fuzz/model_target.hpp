// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/json_text.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/models/load_layer.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fuzz {

/// Tensors of a file to come, all of whose values are 1.
class planted_model {
public:
  struct tensor {
    hmoe::io::tensor_type type = hmoe::io::tensor_type::f32;
    std::vector<std::size_t> shape;
  };
  std::map<std::string, tensor> tensors;

  /// What a description asks for by its names number `which`. Returns false where that is too much for one input.
  bool add(const hmoe::io::models::layer_description& layer, std::size_t lanes, std::size_t which) {
    namespace models = hmoe::io::models;
    const models::layer_names& names = layer.names[which % layer.names.size()];
    constexpr std::size_t most = 32;
    if (layer.experts > most || layer.d_model > most || layer.width > most || layer.shared_width > most)
      return false;
    prefix_ = "model." + names.block;
    for (const models::router_tensor& one : names.router) {
      if (one.rows > 2 * most || one.cols > 2 * most)
        return false;
      tensors[prefix_ + one.name].shape = one.rows == 1 ? std::vector{one.cols} : std::vector{one.rows, one.cols};
    }
    const auto add_expert = [&](const models::expert_names& of, std::size_t e, bool single, std::size_t width) {
      for (const models::tensor_part& part :
           models::detail::parts_of(of, lanes, e, single ? 1 : layer.experts, single, width, layer.d_model))
        add_weights(prefix_ + part.name, part.shape, of.in_blocks && !part.name.ends_with("_bias"));
    };
    for (std::size_t e = 0; e < layer.experts; ++e)
      add_expert(names.experts, e, false, layer.width);
    if (layer.shared_width != 0)
      add_expert(names.shared, 0, true, layer.shared_width);
    return true;
  }
  void add_table(std::size_t rows, std::size_t cols) {
    if (rows <= 64 && cols <= 64)
      tensors[prefix_ + "gate.tid2eid"] = {hmoe::io::tensor_type::i64, {rows, cols}};
  }

  /// Changes that three bytes each say: which, of what tensor, how.
  void change(std::span<const std::byte> how) {
    namespace io = hmoe::io;
    for (; how.size() >= 3 && !tensors.empty(); how = how.subspan(3)) {
      const auto number = [&](std::size_t i) { return std::to_integer<std::size_t>(how[i]); };
      const auto at = std::next(tensors.begin(), static_cast<std::ptrdiff_t>(number(1) % tensors.size()));
      tensor& some = at->second;
      switch (number(0) % 7) {
      case 0:
        tensors.erase(at);
        break;
      case 1:
        some.type = io::tensor_types[number(2) % 17].type;
        break;
      case 2:
        if (!some.shape.empty())
          some.shape[number(2) % some.shape.size()] += number(2) >= 128 ? std::size_t{0} - 1 : 1;
        break;
      case 3:
        some.shape.resize(number(2) % 4, 1);
        break;
      case 4: // a surplus one
        tensors[at->first + static_cast<char>('0' + number(2) % 10)] = some;
        break;
      case 5: // squares of FP8 with factors
        if (some.shape.size() == 2) {
          some.type = io::tensor_type::f8_e4m3;
          tensors[at->first + "_scale_inv"].shape = {(some.shape[0] + 127) / 128, (some.shape[1] + 127) / 128};
        }
        break;
      case 6: // another spelling of its prefix
        tensors[at->first.substr(std::min(at->first.size(), number(2) % 8))] = some;
        tensors.erase(at);
        break;
      }
    }
  }

  /// As a safetensors file.
  [[nodiscard]] std::string bytes() const {
    namespace io = hmoe::io;
    std::string header = "{", data;
    for (const auto& [name, one] : tensors) {
      const io::tensor_type_traits& traits = io::traits_of(one.type);
      std::size_t count = 1;
      for (const std::size_t n : one.shape)
        count = n > most_values ? most_values + 1 : std::min(count * n, most_values + 1);
      if (count > most_values)
        continue;
      const std::size_t first = data.size();
      for (std::size_t i = 0; i < count / traits.block_values; ++i)
        data += value_of(one.type, name);
      if (header.size() > 1)
        header += ',';
      io::append_json_string(header, name);
      header += ":{\"dtype\":\"" + std::string(traits.name) + "\",\"shape\":[";
      for (std::size_t i = 0; i < one.shape.size(); ++i)
        header += (i == 0 ? "" : ",") + std::to_string(one.shape[i]);
      header += "],\"data_offsets\":[" + std::to_string(first) + "," + std::to_string(data.size()) + "]}";
    }
    header += '}';
    std::string size(sizeof(std::uint64_t), '\0');
    const std::uint64_t length = header.size();
    std::memcpy(size.data(), &length, sizeof length);
    return size + header + data;
  }

private:
  static constexpr std::size_t most_values = std::size_t{1} << 14U; ///< of a tensor

  void add_weights(const std::string& name, std::vector<std::size_t> shape, bool in_blocks) {
    if (!in_blocks) {
      tensors[name].shape = std::move(shape);
      return;
    }
    shape.back() = (shape.back() + 31) / 32;
    tensors[name + "_scales"] = {hmoe::io::tensor_type::u8, shape};
    shape.push_back(16);
    tensors[name + "_blocks"] = {hmoe::io::tensor_type::u8, shape};
  }
  /// The bytes of a 1; of MXFP4 in U8 two codes of 1 or an exponent of 0.
  [[nodiscard]] static std::string value_of(hmoe::io::tensor_type type, const std::string& name) {
    using hmoe::io::tensor_type;
    const auto text = [](auto value) {
      std::string result(sizeof value, '\0');
      std::memcpy(result.data(), &value, sizeof value);
      return result;
    };
    switch (type) {
    case tensor_type::f32:
      return text(1.0F);
    case tensor_type::f64:
      return text(1.0);
    case tensor_type::bf16:
      return text(std::uint16_t{0x3f80});
    case tensor_type::f16:
      return text(std::uint16_t{0x3c00});
    case tensor_type::f8_e4m3:
      return "\x38";
    case tensor_type::f8_e5m2:
      return "\x3c";
    case tensor_type::f8_e8m0:
      return "\x7f";
    case tensor_type::u8:
      return name.ends_with("_blocks") ? "\x22" : name.ends_with("_scales") ? "\x7f" : "\x01";
    default: {
      std::string one(hmoe::io::traits_of(type).block_bytes, '\0');
      one[0] = 1;
      return one;
    }
    }
  }
  std::string prefix_;
};

/// A file in memory that has a path while this lives.
class file_in_memory {
public:
  explicit file_in_memory(const std::string& bytes) : descriptor_(::memfd_create("fuzz", 0)) {
    if (descriptor_ < 0 || ::write(descriptor_, bytes.data(), bytes.size()) != static_cast<::ssize_t>(bytes.size()))
      std::abort();
  }
  file_in_memory(const file_in_memory&) = delete;
  file_in_memory& operator=(const file_in_memory&) = delete;
  ~file_in_memory() { ::close(descriptor_); }
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

private:
  int descriptor_;
};

/// Whether the layer is of the family and has been loaded. hmoe::error where it cannot be.
template <class Family>
bool load_planted(const hmoe::io::models::model_config& config, std::size_t number, std::size_t names,
                  std::span<const std::byte> changes) {
  namespace models = hmoe::io::models;
  if (!models::is_of_family<Family>(config, number))
    return false;
  planted_model planted;
  try {
    const models::layer_description described = Family::describe(config, number);
    if (planted.add(described, Family::lanes, names) &&
        std::ranges::find(described.names[0].unused, "gate.tid2eid") != described.names[0].unused.end())
      planted.add_table(config.size({"vocab_size"}), config.size({"num_experts_per_tok"}));
    planted.change(changes);
  } catch (const hmoe::error&) { // the layer is refused whatever the file has, then
  }
  const file_in_memory bytes(planted.bytes());
  const hmoe::io::sharded_safetensors file(bytes.path());
  const auto layer = models::load_layer<Family>(config, file, number);
  // Every weight has been read, and would be by simd::pack.
  const auto all_ones = [](hmoe::matrix_view<const float> values) {
    bool same = true;
    for (std::size_t r = 0; r < values.rows(); ++r)
      for (const float value : values.row(r))
        same = same && value == 1.0F;
    return same;
  };
  constexpr std::size_t lanes = Family::lanes;
  const auto& weights = layer.experts().template bank<0>().weights();
  const models::layer_tensors tensors(file, Family::describe(config, number), lanes);
  const auto source = tensors.template experts<lanes>();
  if (source.size() != weights.size())
    std::abort();
  for (std::size_t e = 0; e < weights.size(); ++e)
    for (std::size_t m = 0; m <= lanes; ++m) {
      const hmoe::matrix_view<const float> loaded = m < lanes ? weights.lane(e, m) : weights.output(e);
      hmoe::matrix<float> again(loaded.rows(), loaded.cols());
      source.read(e, m, 0, again.view());
      bool same = all_ones(loaded) && all_ones(std::as_const(again).view());
      if (source.template has_blocks<hmoe::mxfp4_block>(e, m)) {
        std::vector<hmoe::mxfp4_block> blocks(loaded.size() / hmoe::quantized_block_size);
        source.read_blocks(e, m, 0, loaded.rows(), blocks.data());
        for (const hmoe::mxfp4_block& block : blocks)
          same = same && block.value(0) == 1.0F && block.value(hmoe::quantized_block_size - 1) == 1.0F;
      }
      if (!same)
        std::abort();
    }
  return true;
}

template <class... Families>
bool load_any_planted(hmoe::io::models::family_list<Families...>, const hmoe::io::models::model_config& config,
                      std::size_t number, std::size_t names, std::span<const std::byte> changes) {
  return (load_planted<Families>(config, number, names, changes) || ...);
}

/// A config.json, and behind a zero byte the number of the layer, which of the family's names its tensors have, and
/// how their file differs from what the config asks for, three bytes for each change. Whether it is of a known family.
inline bool load_model(std::span<const std::byte> bytes) {
  const auto end = std::ranges::find(bytes, std::byte{0});
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              static_cast<std::size_t>(end - bytes.begin()));
  const std::span<const std::byte> rest = bytes.subspan(std::min(bytes.size(), text.size() + 1));
  const auto number = [&](std::size_t i) { return i < rest.size() ? std::to_integer<std::size_t>(rest[i]) : 0; };
  const hmoe::io::models::model_config config(text, "fuzz");
  return load_any_planted(hmoe::io::models::families{}, config, number(0), number(1),
                          rest.subspan(std::min<std::size_t>(rest.size(), 2)));
}
inline void model(std::span<const std::byte> bytes) {
  try {
    static_cast<void>(load_model(bytes));
  } catch (const hmoe::error&) {
  }
}

} // namespace fuzz
