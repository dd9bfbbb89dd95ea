// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/io/checksum.hpp>
#include <hmoe/io/expert_kinds.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/packed_kinds.hpp>
#include <hmoe/io/packed_manifest.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

/// Layers of packed experts in files, which packed_checkpoint_writer.hpp writes: mapped without packing anew
/// (docs/checkpoints.md). Which header packs is nothing that this one knows: it takes any packed_form.
namespace hmoe::io {

/// Whether the checksums of a file are compared, which reads all of what is used once.
enum class checksums { compare, skip };

/// What stands for a packed bank of a file in map_packed_layer: its type, and its gate.
template <packed_form Bank> struct mapped_bank {
  typename Bank::gate_type gate{};
};

/// A mapped file of packed layers. It is checked as safetensors_file says, and its manifest against its tensors, before
/// anything of its size is allocated. Banks work on the mapped bytes, and keep the file open as long as they need it; a
/// file whose panels do not lie at a multiple of 64 bytes, since another program wrote it anew, is copied to memory.
class packed_checkpoint {
public:
  explicit packed_checkpoint(std::string path, checksums which = checksums::compare)
      : packed_checkpoint(std::make_shared<const safetensors_file>(std::move(path)), which) {}
  /// Bytes of the caller, which must outlive this object and what it hands out; `name` is what messages call them.
  packed_checkpoint(std::span<const std::byte> bytes, std::string name, checksums which = checksums::compare)
      : packed_checkpoint(std::make_shared<const safetensors_file>(bytes, std::move(name)), which) {}

  [[nodiscard]] const packed_manifest& manifest() const noexcept { return manifest_; }
  /// The layer with that prefix; hmoe::error where there is none.
  [[nodiscard]] const packed_layer_entry& layer(std::string_view prefix) const {
    const packed_layer_entry* found = manifest_.find(prefix);
    require(found != nullptr, file_->name(), " has no layer with the prefix ", in_quotes(prefix), "; it has ",
            manifest_.layers.size(), " layers");
    return *found;
  }
  /// The ids of the layer's experts, bank by bank.
  [[nodiscard]] expert_ids ids(std::string_view prefix) const {
    expert_ids result;
    for (const packed_bank_entry& bank : layer(prefix).banks)
      result.of_bank.push_back(bank.ids);
    return result;
  }

  /// Bank b of a layer, on the mapped bytes. hmoe::error where it is of another kind, format or layout (a CPU with
  /// other registers) than Bank, where tensors are missing, of other sizes, or altered.
  template <packed_form Bank>
  [[nodiscard]] Bank bank(std::string_view prefix, std::size_t b, typename Bank::gate_type gate = {}) const {
    const packed_layer_entry& of = layer(prefix);
    const packed_bank_entry& entry = entry_of(of, b);
    const std::string where = place(of, b);
    constexpr packed_layout layout = Bank::layout();
    require_kind(where, entry, detail::packed_kind<Bank>());
    require(entry.format == layout.format, where, " is stored as ", in_quotes(entry.format), ", asked for is ",
            layout.format);
    require(entry.lanes == layout.lanes && entry.panel_columns == layout.panel_columns, where, " has panels of ",
            entry.panel_columns, " columns, for a CPU whose registers hold ", entry.panel_columns / 2,
            " floats; this program's have ", layout.panel_columns,
            " columns: pack the checkpoint anew, or use the instruction set that it was packed for");
    const auto memory = std::make_shared<copies>(file_);
    const std::string name = detail::bank_prefix(b);
    packed_values values{.d_model = of.d_model,
                         .widths = entry.widths,
                         .panels = tensor(of, name + "panels", tensor_type::u64).bytes(),
                         .has_biases = entry.biases,
                         .in_bias = {},
                         .out_bias = {},
                         .owner = memory};
    if (entry.biases) {
      values.in_bias = floats(tensor(of, name + "in_bias", tensor_type::f32), memory->in_bias);
      values.out_bias = floats(tensor(of, name + "out_bias", tensor_type::f32), memory->out_bias);
    }
    if (reinterpret_cast<std::uintptr_t>(values.panels.data()) % memory_alignment != 0)
      values.panels = copied(values.panels, memory->panels);
    return Bank(values, std::move(gate));
  }
  /// Reads the parameters of bank b, which is not packed, or with no_bank those of the router, into `object`.
  /// hmoe::error, and nothing is written, where tensors are missing, of another type or shape, or altered.
  static constexpr std::size_t no_bank = static_cast<std::size_t>(-1);
  template <class Object> void read_parameters(std::string_view prefix, std::size_t b, Object& object) const {
    const packed_layer_entry& of = layer(prefix);
    std::vector<std::size_t> ids;
    if (b != no_bank) {
      const packed_bank_entry& entry = entry_of(of, b);
      require(entry.format.empty(), place(of, b), " is packed, as ", in_quotes(entry.format),
              ": give its type as an io::mapped_bank");
      require_kind(place(of, b), entry, expert_kind<Object>::name());
      require(entry.ids.size() == object.size(), place(of, b), " has ", entry.ids.size(), " experts, asked for are ",
              object.size());
      ids = entry.ids;
    }
    using value_type = typename Object::value_type;
    std::vector<std::pair<const stored_tensor*, matrix_view<value_type>>> all;
    object.visit_parameters([&](const parameter_info& info, matrix_view<value_type> to) {
      if (to.size() == 0)
        return;
      const std::size_t expert = info.expert < ids.size() ? ids[info.expert] : info.expert;
      const stored_tensor& from =
          tensor(of, parameter_info{.name = info.name, .expert = expert}.full_name(), tensor_type_of<value_type>);
      from.require_shape(to.rows(), to.cols());
      all.emplace_back(&from, to);
    });
    for (const auto& [from, to] : all)
      from->read(to);
  }

private:
  /// What is not used where it lies.
  struct copies {
    explicit copies(std::shared_ptr<const safetensors_file> of) : file(std::move(of)) {}
    std::shared_ptr<const safetensors_file> file;
    buffer<std::byte> panels;
    buffer<float> in_bias, out_bias;
  };

  packed_checkpoint(std::shared_ptr<const safetensors_file> file, checksums which)
      : file_(std::move(file)), which_(which) {
    const std::string* text = file_->metadata(packed_manifest::key);
    require(text != nullptr, file_->name(), " has no metadata under ", in_quotes(packed_manifest::key),
            ": it is no checkpoint of packed experts");
    manifest_ = packed_manifest::from_json(*text, file_->name() + ": its manifest");
    std::set<std::string> names;
    for (const packed_layer_entry& layer : manifest_.layers)
      for (const packed_tensor_entry& tensor : layer.tensors) {
        static_cast<void>(file_->at(layer.prefix + tensor.name));
        require(names.insert(layer.prefix + tensor.name).second, file_->name(), ": its manifest has the tensor ",
                in_quotes(layer.prefix + tensor.name), " twice");
      }
  }

  [[nodiscard]] std::string place(const packed_layer_entry& layer, std::size_t b) const {
    return file_->name() + ": layer " + in_quotes(layer.prefix) + ": bank " + std::to_string(b);
  }
  [[nodiscard]] const packed_bank_entry& entry_of(const packed_layer_entry& layer, std::size_t b) const {
    require(b < layer.banks.size(), file_->name(), ": layer ", in_quotes(layer.prefix), " has ", layer.banks.size(),
            " banks, asked for is bank ", b);
    return layer.banks[b];
  }
  static void require_kind(const std::string& where, const packed_bank_entry& entry, const std::string& kind) {
    require(entry.kind == kind, where, " is of the kind ", in_quotes(entry.kind), ", asked for is ", in_quotes(kind));
  }
  /// A tensor of the layer, with the right checksum.
  [[nodiscard]] const stored_tensor& tensor(const packed_layer_entry& layer, const std::string& name,
                                            tensor_type type) const {
    const packed_tensor_entry* entry = layer.find(name);
    require(entry != nullptr, file_->name(), ": the manifest of layer ", in_quotes(layer.prefix),
            " does not have the tensor ", in_quotes(name));
    const stored_tensor& found = file_->at(layer.prefix + name);
    require(found.type() == type, file_->name(), ": tensor ", in_quotes(found.name()), " is ", found.description(),
            ", needed is ", traits_of(type).name);
    if (which_ == checksums::compare) {
      const std::uint64_t sum = word_checksum(found.bytes());
      require(sum == entry->checksum, file_->name(), " is damaged: the checksum of tensor ", in_quotes(found.name()),
              " is ", sum, " instead of ", entry->checksum);
    }
    return found;
  }
  template <class T> static std::span<const T> copied(std::span<const std::byte> bytes, buffer<T>& to) {
    to.resize_for_overwrite(bytes.size() / sizeof(T));
    std::ranges::copy(bytes, reinterpret_cast<std::byte*>(to.data()));
    return {to.data(), to.size()};
  }
  static std::span<const float> floats(const stored_tensor& from, buffer<float>& copy) {
    if (!from.viewable<float>())
      return copied(from.bytes(), copy);
    return {from.view<float>().data(), from.size()};
  }

  std::shared_ptr<const safetensors_file> file_;
  checksums which_;
  packed_manifest manifest_;
};

/// A layer of a file: packed banks on the mapped bytes, and what else it consists of, which is given in its shape and
/// gets its parameters from the file. `banks` are, in the layer's order, an io::mapped_bank<Bank> for each packed bank
/// and a bank for each other one.
///   const io::packed_checkpoint file{"layer.safetensors"};
///   auto layer = io::map_packed_layer(file, "", router, dispatch::scattered{}, io::mapped_bank<packed_glu>{});
template <class Router, class Dispatch, class... Banks>
[[nodiscard]] auto map_packed_layer(const packed_checkpoint& file, std::string_view prefix, Router router,
                                    Dispatch dispatch, Banks... banks) {
  const packed_layer_entry& entry = file.layer(prefix);
  require(entry.banks.size() == sizeof...(Banks), "the layer with the prefix ", in_quotes(prefix), " has ",
          entry.banks.size(), " banks, given are ", sizeof...(Banks));
  const auto make = [&]<class Bank>(std::size_t b, Bank& given) {
    if constexpr (requires { given.gate; }) {
      return [&]<class Packed>(const mapped_bank<Packed>& packed) {
        return file.bank<Packed>(prefix, b, packed.gate);
      }(given);
    } else {
      file.read_parameters(prefix, b, given);
      return std::move(given);
    }
  };
  std::size_t b = 0;
  // Braces, so that they are made in this order.
  std::tuple made{[&] { return make(b++, banks); }()...};
  file.read_parameters(prefix, packed_checkpoint::no_bank, router);
  return std::apply(
      [&](auto&... bank) {
        return moe_layer{expert_set{file.ids(prefix), std::move(bank)...}, std::move(router), std::move(dispatch)};
      },
      made);
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
