// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace hmoe::communicators {

/// A group of one rank, which sends to itself: what is written for many ranks runs in one process.
class single : public waiting_forms<single> {
public:
  [[nodiscard]] static constexpr std::size_t rank() noexcept { return 0; }
  [[nodiscard]] static constexpr std::size_t size() noexcept { return 1; }

  /// All is done when an operation begins.
  struct pending {
    void finish() const noexcept {}
  };
  template <message_value T>
  pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    lengths::check_equal_parts(1, send.size(), receive.size());
    std::ranges::copy(send, receive.begin());
    return {};
  }
  template <message_value T>
  pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<const std::size_t> send_rows,
                           std::span<T> receive, std::span<const std::size_t> receive_rows,
                           std::size_t columns = 1) const {
    lengths::check_rows(1, "send", send.size(), send_rows, columns);
    lengths::check_rows(1, "receive", receive.size(), receive_rows, columns);
    require(send_rows[0] == receive_rows[0], "all_to_all: rank 0 expects ", receive_rows[0],
            " rows of rank 0, which sends ", send_rows[0]);
    std::ranges::copy(send, receive.begin());
    return {};
  }
  template <summed_value T> pending begin_all_reduce(std::span<T>) const noexcept { return {}; }
  template <message_value T>
  pending begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    lengths::check_gathered(1, own.size(), all.size());
    std::ranges::copy(own, all.begin());
    return {};
  }
};

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
