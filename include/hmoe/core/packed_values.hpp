// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace hmoe {

/// How a packed bank lays out its values. The values of one bank are those of another where both are equal; what CPUs
/// differ in is panel_columns.
struct packed_layout {
  std::string_view format;   ///< how weights are stored: f32, bf16, q8, …
  std::size_t lanes;         ///< matrices that read a token: 2 of a GLU, 1 of an MLP
  std::size_t panel_columns; ///< columns of a panel: two registers of floats

  friend bool operator==(const packed_layout&, const packed_layout&) = default;
};

/// All values of a packed bank, where they are. A bank that is made of them keeps `owner`; without one the memory is
/// the caller's and must outlive the bank and its copies.
struct packed_values {
  std::size_t d_model = 0;
  std::vector<std::size_t> widths;
  std::span<const std::byte> panels; ///< at a multiple of 64 bytes
  bool has_biases = false;
  std::span<const float> in_bias, out_bias; ///< empty without biases
  std::shared_ptr<const void> owner;
};

/// A bank that can be taken apart into packed_values and made of them again: what io/packed_checkpoint.hpp saves.
template <class Bank>
concept packed_form = requires(const Bank& bank, packed_values values, typename Bank::gate_type gate) {
  { Bank::layout() } -> std::same_as<packed_layout>;
  { bank.values() } -> std::same_as<packed_values>;
  Bank(values, gate);
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
