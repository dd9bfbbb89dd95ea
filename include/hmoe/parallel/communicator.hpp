// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace hmoe {

namespace communicators {

/// Values that travel between ranks, byte by byte.
template <class T>
concept message_value = std::is_trivially_copyable_v<T> && !std::is_const_v<T>;
/// Values that ranks add up: float, double, and integers of 4 or 8 bytes.
template <class T>
concept summed_value =
    std::same_as<T, float> || std::same_as<T, double> || (std::integral<T> && (sizeof(T) == 4 || sizeof(T) == 8));

/// Of the types of values that ranks add up in another library the one that is T.
template <summed_value T, class Type>
[[nodiscard]] constexpr Type type_of(Type of_float, Type of_double, Type of_int32, Type of_int64, Type of_uint32,
                                     Type of_uint64) noexcept {
  if constexpr (std::same_as<T, float>)
    return of_float;
  else if constexpr (std::same_as<T, double>)
    return of_double;
  else if constexpr (std::is_signed_v<T>)
    return sizeof(T) == 4 ? of_int32 : of_int64;
  else
    return sizeof(T) == 4 ? of_uint32 : of_uint64;
}

/// What begin_… returns. finish() waits until the results are there, and has to be called in the order in which
/// operations began. One that is destroyed waits as well, and its results are unspecified.
template <class P>
concept pending_operation = std::move_constructible<P> && requires(P& pending) { pending.finish(); };

} // namespace communicators

/// The ranks of a group, one for each process (or thread) that takes part, and how they exchange values. All ranks call
/// the same operations in the same order, each from one thread at a time.
///   rank(), size()                          this one's number, and how many there are
///   begin_all_to_all(send, receive)         size() parts of the same length each: part p of `send` goes to rank
///                                           p, part p of `receive` comes from rank p
///   begin_all_to_all(send, send_rows, receive, receive_rows, columns = 1)
///                                           the same with parts of send_rows[p] and receive_rows[p] rows of `columns`
///                                           values, one part behind the other; 64-bit counts
///   begin_all_reduce(values)                values = their sum over all ranks, the same bits on every rank
///   begin_all_gather(own, all)              all[p] = own of rank p; `own` is of one length on all ranks
///   all_to_all, all_reduce, all_gather      the same and finish(); inherit communicators::waiting_forms to have them
/// Other work may be done between begin and finish. Until then memory that is sent must not change, memory that is
/// received into must not be used, and all spans must stay valid. The first span to write to gives the type of values:
/// communicators::message_value, for sums communicators::summed_value. hmoe::error for lengths that do not fit
/// together.
template <class C>
concept communicator =
    std::copy_constructible<C> &&
    requires(const C& c, std::span<const float> from, std::span<float> to, std::span<const std::uint32_t> ids,
             std::span<std::uint32_t> other_ids, std::span<std::uint64_t> sums, std::span<const std::size_t> rows) {
      { c.rank() } -> std::convertible_to<std::size_t>;
      { c.size() } -> std::convertible_to<std::size_t>;
      { c.begin_all_to_all(ids, other_ids) } -> communicators::pending_operation;
      { c.begin_all_to_all(from, rows, to, rows, std::size_t{1}) } -> communicators::pending_operation;
      { c.begin_all_reduce(to) } -> communicators::pending_operation;
      { c.begin_all_gather(ids, other_ids) } -> communicators::pending_operation;
      c.all_to_all(ids, other_ids);
      c.all_to_all(from, rows, to, rows, std::size_t{1});
      c.all_to_all(from, rows, to, rows);
      c.all_reduce(to);
      c.all_reduce(sums);
      c.all_gather(ids, other_ids);
    };

namespace communicators {

/// The forms that wait, made of those that begin: for communicators to inherit from.
template <class Own> class waiting_forms {
public:
  template <message_value T>
  void all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    own().template begin_all_to_all<T>(send, receive).finish();
  }
  template <message_value T>
  void all_to_all(std::span<const std::type_identity_t<T>> send, std::span<const std::size_t> send_rows,
                  std::span<T> receive, std::span<const std::size_t> receive_rows, std::size_t columns = 1) const {
    own().template begin_all_to_all<T>(send, send_rows, receive, receive_rows, columns).finish();
  }
  template <summed_value T> void all_reduce(std::span<T> values) const {
    own().template begin_all_reduce<T>(values).finish();
  }
  template <message_value T>
  void all_gather(std::span<const std::type_identity_t<T>> own_values, std::span<T> all) const {
    own().template begin_all_gather<T>(own_values, all).finish();
  }

private:
  [[nodiscard]] const Own& own() const noexcept { return static_cast<const Own&>(*this); }
};

/// Lengths that an operation cannot work with are an hmoe::error on the rank that gave them.
namespace lengths {

inline void check_equal_parts(std::size_t ranks, std::size_t sent, std::size_t received) {
  require(sent == received && sent % ranks == 0, "all_to_all of ", sent, " values into ", received, " on ", ranks,
          " ranks: both must be the same multiple of the number of ranks");
}
inline void check_rows(std::size_t ranks, const char* which, std::size_t values, std::span<const std::size_t> rows,
                       std::size_t columns) {
  require(rows.size() == ranks, "all_to_all: ", which, "_rows has ", rows.size(), " numbers, there are ", ranks,
          " ranks");
  std::size_t total = 0;
  for (const std::size_t count : rows)
    total += count;
  require(total * columns == values, "all_to_all: ", which, " has ", values, " values, ", which, "_rows are ", total,
          " rows of ", columns);
}
inline void check_gathered(std::size_t ranks, std::size_t own, std::size_t all) {
  require(all == own * ranks, "all_gather of ", own, " values on each of ", ranks, " ranks into ", all, ": needed are ",
          own * ranks);
}

} // namespace lengths
} // namespace communicators
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
