// SPDX-License-Identifier: MIT
#pragma once

#include "arrays.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace hmoe::python {

/// The experts of a layer on the memory of Python's arrays, which it keeps alive: what `_core.Bank` is. All experts of
/// widths h_e lie one behind the other without padding, so that a stacked tensor [experts × rows × columns] is one form
/// of it:
///   input        [Σ lanes · h_e × d_model]; of gated experts h_e rows of the gate above h_e rows of up, or, where they
///                are interleaved, a row of the gate and a row of up in turn
///   output       [Σ d_model · h_e]: for each expert [d_model × h_e]
/// (each expert's matrices transposed, where it says so: [d_model × lanes · h_e] and [h_e × d_model])
///   input_bias   [Σ lanes · h_e], not interleaved; output_bias [experts × d_model]
class bank {
public:
  struct options {
    std::string function = "silu";
    double limit = std::numeric_limits<double>::infinity(), alpha = 1.702;
    bool gated = true, interleaved = false, transposed = false;
  };
  /// hmoe::error where shapes and types do not fit. `writable`: the arrays may be written.
  bank(std::size_t d_model, const std::vector<std::size_t>& widths, array input, array output,
       std::optional<array> input_bias, std::optional<array> output_bias, const options& how, bool writable);

  /// A bank of the same shape on arrays to write gradients to; of those that are missing none are computed.
  [[nodiscard]] bank gradients(std::optional<array> input, std::optional<array> output, std::optional<array> input_bias,
                               std::optional<array> output_bias) const;

  [[nodiscard]] const bank_memory& memory() const noexcept { return memory_; }
  /// Whether it may hold gradients.
  [[nodiscard]] bool writable() const noexcept { return writable_; }
  [[nodiscard]] std::size_t lanes() const noexcept { return memory_.gated ? 2 : 1; }
  /// Values that a forward pass keeps for backward at most: those of the widest expert for each choice.
  [[nodiscard]] std::size_t saved_values(std::size_t tokens, std::size_t choices) const noexcept;

private:
  /// Sets where the weights of all experts are.
  void place(std::optional<array> input, std::optional<array> output, std::optional<array> input_bias,
             std::optional<array> output_bias);

  bank_memory memory_;
  std::vector<array> owners_;
  bool writable_;
};

[[nodiscard]] step step_named(const std::string& name);
/// What the options name; hmoe::error where they do not go together.
[[nodiscard]] step step_of(const bank::options& how);

} // namespace hmoe::python
