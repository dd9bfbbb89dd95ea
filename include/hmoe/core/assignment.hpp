// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>

#include <memory_resource>

namespace hmoe {

/// Which experts each token goes to, and with what weight: CSR by token. Entry a in [offsets[t], offsets[t+1]) sends
/// token t to experts()[a] with weights()[a]; ids ascend within a token. A token may have no expert; padding tokens
/// (routing_inputs::valid) have none, shared ones included.
template <class T> class assignment {
public:
  assignment() : assignment(std::pmr::get_default_resource()) { resize_tokens(0); }
  /// Takes no memory yet: offsets() is empty until resize_tokens.
  explicit assignment(std::pmr::memory_resource* memory) : offsets_(memory), experts_(memory), weights_(memory) {}

  /// Number of tokens T.
  [[nodiscard]] std::size_t tokens() const noexcept { return offsets_.size() == 0 ? 0 : offsets_.size() - 1; }
  /// Tokens that are not padding.
  [[nodiscard]] std::size_t valid_tokens() const noexcept { return tokens() - padding_; }
  /// Number of (token, expert) entries.
  [[nodiscard]] std::size_t size() const noexcept { return offsets_.size() == 0 ? 0 : offsets_[tokens()]; }

  [[nodiscard]] vector_view<index_t> offsets() noexcept { return offsets_.view(); }
  [[nodiscard]] vector_view<const index_t> offsets() const noexcept { return offsets_.view(); }
  [[nodiscard]] vector_view<index_t> experts() noexcept { return experts_.view(); }
  [[nodiscard]] vector_view<const index_t> experts() const noexcept { return experts_.view(); }
  [[nodiscard]] vector_view<T> weights() noexcept { return weights_.view(); }
  [[nodiscard]] vector_view<const T> weights() const noexcept { return weights_.view(); }

  [[nodiscard]] vector_view<const index_t> experts_of(std::size_t token) const noexcept {
    return experts().subview(offsets_[token], offsets_[token + 1] - offsets_[token]);
  }
  [[nodiscard]] vector_view<const T> weights_of(std::size_t token) const noexcept {
    return weights().subview(offsets_[token], offsets_[token + 1] - offsets_[token]);
  }

  /// Building one: first the number of tokens, then offsets()[1…T] ascending, or counts there and sum_counts(), then
  /// resize_entries(), then the ids and weights.
  void resize_tokens(std::size_t tokens) {
    offsets_.resize_for_overwrite(tokens + 1);
    offsets_.fill(0);
    padding_ = 0;
  }
  /// How many of the tokens are padding; set after resize_tokens, which sets 0.
  void set_padding(std::size_t tokens) noexcept { padding_ = tokens; }
  /// Makes offsets of counts: offsets()[t + 1] holds how many entries token t has, and becomes the sum of those of the
  /// tokens 0…t. hmoe::error, with the counts as they were, where the sum does not fit 32-bit offsets.
  void sum_counts() {
    std::size_t total = 0;
    for (std::size_t t = 1; t < offsets_.size(); ++t)
      total += offsets_[t];
    require(total < no_index, tokens(), " tokens with ", total,
            " entries in all are too many for 32-bit offsets, which count to ", no_index - 1,
            ": route them in smaller batches");
    for (std::size_t t = 1; t < offsets_.size(); ++t)
      offsets_[t] += offsets_[t - 1];
  }
  /// hmoe::error where offsets descend, as sums do that did not fit 32 bits.
  void require_ascending_offsets() const {
    if (offsets_.size() == 0)
      return;
    require(offsets_[0] == 0, "assignment offsets start at ", offsets_[0], " instead of 0");
    for (std::size_t t = 0; t < tokens(); ++t)
      require(offsets_[t] <= offsets_[t + 1], "assignment offsets of token ", t, " descend: ", offsets_[t], " to ",
              offsets_[t + 1]);
  }
  /// Throws where the offsets descend.
  void resize_entries() {
    require_ascending_offsets();
    experts_.resize_for_overwrite(size());
    weights_.resize_for_overwrite(size());
  }
  /// Room for `tokens` tokens with `entries` entries in all, so that later use allocates nothing. Writes nothing.
  void reserve(std::size_t tokens, std::size_t entries) {
    offsets_.resize_for_overwrite(0);
    offsets_.reserve(tokens + 1);
    experts_.reserve(entries);
    weights_.reserve(entries);
  }

  /// Throws unless offsets ascend and every token's ids are below expert_count and ascend strictly.
  void validate(std::size_t expert_count) const {
    require(offsets_.size() != 0, "the assignment has no offsets yet: a forward pass, or resize_tokens, makes them");
    require_ascending_offsets();
    require(experts_.size() >= size() && weights_.size() >= size(), "the assignment has ", size(),
            " entries by its offsets, but ", experts_.size(), " ids and ", weights_.size(), " weights");
    for (std::size_t t = 0; t < tokens(); ++t) {
      const auto ids = experts_of(t);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        require(ids[i] < expert_count, "token ", t, " is assigned to expert ", ids[i], " of ", expert_count);
        require(i == 0 || ids[i - 1] < ids[i], "the experts of token ", t,
                " are not in ascending order: ", i == 0 ? 0 : ids[i - 1], " before ", ids[i]);
      }
    }
  }

private:
  buffer<index_t> offsets_, experts_;
  buffer<T> weights_;
  std::size_t padding_ = 0;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
