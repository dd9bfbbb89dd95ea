// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>

#include <algorithm>
#include <memory_resource>

namespace hmoe {

/// The assignment transposed: CSR by expert. Slot s in [offsets[e], offsets[e+1]) is one row that expert e works
/// on: tokens()[s] is its source row, entries()[s] the entry of the assignment it came from. slots()[a] is the
/// inverse: the slot of entry a, or no_index where the entry was dropped. Tokens ascend within an expert. A strategy
/// that gives experts a fixed number of rows adds padding slots behind the tokens of an expert: their token and entry
/// are no_index.
class plan {
public:
  plan() : plan(std::pmr::get_default_resource()) { resize(0, 0, 0); }
  /// Takes no memory yet: offsets() is empty until resize.
  explicit plan(std::pmr::memory_resource* memory)
      : offsets_(memory), tokens_(memory), entries_(memory), slots_(memory) {}

  [[nodiscard]] std::size_t expert_count() const noexcept { return offsets_.size() == 0 ? 0 : offsets_.size() - 1; }
  /// Number of slots, padding included.
  [[nodiscard]] std::size_t size() const noexcept { return tokens_.size(); }
  /// Slots without a token.
  [[nodiscard]] std::size_t padding() const noexcept { return padding_; }
  /// Entries of the assignment that no expert works on.
  [[nodiscard]] std::size_t dropped() const noexcept { return slots_.size() - (tokens_.size() - padding_); }
  [[nodiscard]] std::size_t rows_of(std::size_t expert) const noexcept {
    return offsets_[expert + 1] - offsets_[expert];
  }

  [[nodiscard]] vector_view<index_t> offsets() noexcept { return offsets_.view(); }
  [[nodiscard]] vector_view<const index_t> offsets() const noexcept { return offsets_.view(); }
  [[nodiscard]] vector_view<index_t> tokens() noexcept { return tokens_.view(); }
  [[nodiscard]] vector_view<const index_t> tokens() const noexcept { return tokens_.view(); }
  [[nodiscard]] vector_view<index_t> entries() noexcept { return entries_.view(); }
  [[nodiscard]] vector_view<const index_t> entries() const noexcept { return entries_.view(); }
  [[nodiscard]] vector_view<index_t> slots() noexcept { return slots_.view(); }
  [[nodiscard]] vector_view<const index_t> slots() const noexcept { return slots_.view(); }

  /// Offsets become zero, the rest is unspecified.
  void resize(std::size_t expert_count, std::size_t slot_count, std::size_t entry_count) {
    offsets_.resize_for_overwrite(expert_count + 1);
    offsets_.fill(0);
    tokens_.resize_for_overwrite(slot_count);
    entries_.resize_for_overwrite(slot_count);
    slots_.resize_for_overwrite(entry_count);
    padding_ = 0;
  }
  /// Another number of slots, `padding` of which have no token; offsets() and slots() stay, tokens() and entries() are
  /// unspecified.
  void resize_slots(std::size_t slot_count, std::size_t padding) {
    tokens_.resize_for_overwrite(slot_count);
    entries_.resize_for_overwrite(slot_count);
    padding_ = padding;
  }
  /// Room for plans of up to that many slots and entries. Writes nothing.
  void reserve(std::size_t expert_count, std::size_t slot_count, std::size_t entry_count) {
    offsets_.resize_for_overwrite(0);
    offsets_.reserve(expert_count + 1);
    tokens_.reserve(slot_count);
    entries_.reserve(slot_count);
    slots_.reserve(entry_count);
  }

private:
  buffer<index_t> offsets_, tokens_, entries_, slots_;
  std::size_t padding_ = 0;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
