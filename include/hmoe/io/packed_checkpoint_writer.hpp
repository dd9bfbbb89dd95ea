// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/io/checksum.hpp>
#include <hmoe/io/expert_kinds.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/packed_kinds.hpp>
#include <hmoe/io/packed_manifest.hpp>
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Writes layers of packed experts as a safetensors file with a packed_manifest: the panels as they are in memory, and
/// the parameters of the router and of banks that are not packed. Everything begins at a multiple of 64 bytes, so that
/// a mapped file is used where it lies. What a layer is composed of (gates, selections, dispatch) is in the program.
class packed_checkpoint_writer {
public:
  /// The layer must outlive this object and stay as it is until write(). hmoe::error where the prefix was added before,
  /// or names of tensors come twice.
  template <class Layer> void add(const Layer& layer, const std::string& prefix = "") {
    require(manifest_.find(prefix) == nullptr, "a layer with the prefix ", in_quotes(prefix), " was added before");
    packed_layer_entry entry{.prefix = prefix, .d_model = layer.d_model()};
    layer.experts().for_each_bank([&](const auto& bank, vector_view<const std::size_t> ids) {
      using bank_type = std::remove_cvref_t<decltype(bank)>;
      packed_bank_entry& added = entry.banks.emplace_back();
      added.ids.assign(ids.begin(), ids.end());
      if constexpr (detail::gives_packed_values<bank_type>) {
        const std::string name = detail::bank_prefix(entry.banks.size() - 1);
        const packed_values values = bank.values();
        const packed_layout layout = bank.layout();
        added.kind = detail::packed_kind_of(bank);
        added.format = layout.format;
        added.lanes = layout.lanes;
        added.panel_columns = layout.panel_columns;
        added.widths = values.widths;
        added.biases = values.has_biases;
        // As words of 64 bits, which come first in the file, where the multiple of 64 bytes is.
        add_tensor(entry, name + "panels", tensor_type::u64, {values.panels.size() / 8}, values.panels);
        if (values.has_biases) {
          add_tensor(entry, name + "in_bias", tensor_type::f32, {values.in_bias.size()}, std::as_bytes(values.in_bias));
          add_tensor(entry, name + "out_bias", tensor_type::f32, {values.out_bias.size()},
                     std::as_bytes(values.out_bias));
        }
      } else {
        static_assert(
            requires { bank.visit_parameters([](const parameter_info&, auto) {}); },
            "hmoe::io::packed_checkpoint_writer: a bank of the layer is neither packed (packed_form) nor has "
            "visit_parameters");
        added.kind = expert_kind<bank_type>::name();
        bank.visit_parameters([&](const parameter_info& info, auto view) {
          add_parameter(entry, parameter_info{.name = info.name, .expert = ids[info.expert]}.full_name(), view);
        });
      }
    });
    layer.router().visit_parameters(
        [&](const parameter_info& info, auto view) { add_parameter(entry, info.full_name(), view); });
    manifest_.layers.push_back(std::move(entry));
  }
  template <class Layer> void add(const Layer&&, const std::string& = "") = delete; ///< it would be gone in write()
  /// A text under "__metadata__", beside the manifest.
  void set_metadata(const std::string& key, std::string text) {
    require(key != packed_manifest::key, "the metadata under ", in_quotes(key), " is the manifest's");
    writer_.set_metadata(key, std::move(text));
  }
  /// Writes the file as file_writer does: it appears under its name when it is complete.
  void write(const std::string& path) {
    writer_.set_metadata(packed_manifest::key, manifest_.to_json());
    writer_.align_to(memory_alignment);
    writer_.write(path);
  }

private:
  void add_tensor(packed_layer_entry& entry, const std::string& name, tensor_type type, std::vector<std::size_t> shape,
                  std::span<const std::byte> bytes) {
    writer_.add(entry.prefix + name, type, std::move(shape), bytes);
    entry.tensors.push_back({name, word_checksum(bytes)});
  }
  template <class T>
  void add_parameter(packed_layer_entry& entry, const std::string& name, matrix_view<const T> values) {
    if (values.size() == 0)
      return;
    require(values.contiguous(), "the parameter ", in_quotes(name), " has rows that lie apart: give it rows of ",
            values.cols(), " values, one behind the other");
    add_tensor(entry, name, tensor_type_of<T>, {values.rows(), values.cols()},
               std::as_bytes(std::span(values.data(), values.size())));
  }

  safetensors_writer writer_;
  packed_manifest manifest_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
