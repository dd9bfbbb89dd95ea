// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/parallel/communicator.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

namespace detail {

/// A value of three bytes, which no message type has.
struct three_bytes {
  unsigned char a = 0, b = 0, c = 0;
  bool operator==(const three_bytes&) const = default;
};

/// The value that rank `from` sends to rank `to` at place i.
template <class T> [[nodiscard]] T message(std::size_t from, std::size_t to, std::size_t i) {
  const auto low = [](std::size_t n) { return static_cast<unsigned char>(n % 251); };
  if constexpr (std::is_same_v<T, three_bytes>)
    return {low(from + 1), low(to + 1), low(i + 1)};
  else
    return static_cast<T>((from * 41 + to) * 1000 + i % 997 + 1);
}

/// Values between others that must stay as they are.
template <class T> class between_margins {
public:
  explicit between_margins(std::size_t count) : values_(count + 2 * margin, mark()) {}
  [[nodiscard]] std::span<T> span() noexcept { return std::span(values_).subspan(margin, values_.size() - 2 * margin); }
  [[nodiscard]] bool intact() const {
    const auto marked = [](const T& value) { return value == mark(); };
    return std::all_of(values_.begin(), values_.begin() + margin, marked) &&
           std::all_of(values_.end() - margin, values_.end(), marked);
  }

private:
  static constexpr std::ptrdiff_t margin = 8;
  static T mark() { return message<T>(0, 0, 76); }
  std::vector<T> values_;
};

/// An exchange with uneven parts, begun by the constructor.
template <class T, class Communicator> class uneven_exchange {
public:
  uneven_exchange(const Communicator& c, std::size_t most, std::size_t columns)
      : rank_(c.rank()), columns_(columns), sent_(c.size()), expected_(c.size()), send_(0), receive_(0) {
    std::size_t out = 0, in = 0;
    for (std::size_t p = 0; p < c.size(); ++p) {
      out += sent_[p] = rows(rank_, p, most);
      in += expected_[p] = rows(p, rank_, most);
    }
    send_ = between_margins<T>(out * columns);
    receive_ = between_margins<T>(in * columns);
    fill(send_.span(), sent_, [&](std::size_t p, std::size_t i) { return message<T>(rank_, p, i); });
  }
  [[nodiscard]] auto begin(const Communicator& c) {
    return c.template begin_all_to_all<T>(send_.span(), sent_, receive_.span(), expected_, columns_);
  }
  void wait(const Communicator& c) {
    c.template all_to_all<T>(send_.span(), sent_, receive_.span(), expected_, columns_);
  }
  void check(report& found, std::string_view what) {
    bool received = true, unchanged = true;
    visit(receive_.span(), expected_,
          [&](std::size_t p, std::size_t i, const T& v) { received = received && v == message<T>(p, rank_, i); });
    visit(send_.span(), sent_,
          [&](std::size_t p, std::size_t i, const T& v) { unchanged = unchanged && v == message<T>(rank_, p, i); });
    found.expect(received, "all_to_all brings each rank's rows, rank by rank", "not on rank ", rank_, " with ", what,
                 ", rows of ", columns_, " values of ", sizeof(T), " bytes");
    found.expect(unchanged && send_.intact() && receive_.intact(), "nothing but the received values is written",
                 "all_to_all changed other memory on rank ", rank_, " with ", what);
  }

private:
  /// Uneven, with empty parts, and nothing at all for rank 1.
  static std::size_t rows(std::size_t from, std::size_t to, std::size_t most) noexcept {
    return to == 1 ? 0 : (from * 7 + to * 5 + most) % (most + 1);
  }
  template <class F> void visit(std::span<T> values, const std::vector<std::size_t>& parts, const F& f) const {
    for (std::size_t p = 0, next = 0; p < parts.size(); ++p)
      for (std::size_t i = 0; i < parts[p] * columns_; ++i)
        f(p, i, values[next++]);
  }
  template <class F> void fill(std::span<T> values, const std::vector<std::size_t>& parts, const F& value) const {
    for (std::size_t p = 0, next = 0; p < parts.size(); ++p)
      for (std::size_t i = 0; i < parts[p] * columns_; ++i)
        values[next++] = value(p, i);
  }

  std::size_t rank_, columns_;
  std::vector<std::size_t> sent_, expected_;
  between_margins<T> send_, receive_;
};

template <class T, class Communicator> void check_even_parts(const Communicator& c, std::size_t each, report& found) {
  const std::size_t rank = c.rank(), size = c.size();
  between_margins<T> send(each * size), receive(each * size), all(each * size);
  for (std::size_t i = 0; i < each * size; ++i)
    send.span()[i] = message<T>(rank, i / std::max<std::size_t>(each, 1), i);
  c.template all_to_all<T>(send.span(), receive.span());
  c.template all_gather<T>(send.span().first(each), all.span());
  bool exchanged = true, gathered = true;
  for (std::size_t p = 0, next = 0; p < size; ++p)
    for (std::size_t i = 0; i < each; ++i, ++next) {
      exchanged = exchanged && receive.span()[next] == message<T>(p, rank, rank * each + i);
      gathered = gathered && all.span()[next] == message<T>(p, 0, i);
    }
  found.expect(exchanged, "all_to_all brings each rank's part", "not on rank ", rank, " with ", each,
               " values to each rank");
  found.expect(gathered, "all_gather brings each rank's values, rank by rank", "not on rank ", rank, " with ", each,
               " values of each rank");
  found.expect(send.intact() && receive.intact() && all.intact(), "nothing but the received values is written",
               "all_to_all or all_gather changed other memory on rank ", rank);
}

template <class T, class Communicator> void check_sums(const Communicator& c, std::size_t count, report& found) {
  between_margins<T> values(count);
  bool right = true;
  const auto value = [](std::size_t p, std::size_t i) { return static_cast<T>(3 * p + i % 97); };
  for (std::size_t i = 0; i < count; ++i)
    values.span()[i] = value(c.rank(), i);
  c.template all_reduce<T>(values.span());
  for (std::size_t i = 0; i < count; ++i) {
    T sum = 0; // exact, since all are small integers
    for (std::size_t p = 0; p < c.size(); ++p)
      sum = static_cast<T>(sum + value(p, i));
    right = right && values.span()[i] == sum;
  }
  found.expect(right, "all_reduce adds up the values of all ranks", "not on rank ", c.rank(), " with ", count,
               " values of ", sizeof(T), " bytes");
  found.expect(values.intact(), "nothing but the received values is written", "all_reduce changed other memory");
}

/// Sums that are rounded.
template <class Communicator> void check_same_sums(const Communicator& c, report& found) {
  constexpr std::size_t count = 500;
  const auto random = random_values<double>(count * (c.rank() + 1), 51);
  std::vector<float> values(count), all(count * c.size());
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(random[i + count * c.rank()]);
  c.template all_reduce<float>(std::span(values));
  c.template all_gather<float>(values, std::span(all));
  for (std::size_t p = 0; p < c.size(); ++p)
    found.expect(std::memcmp(all.data() + p * count, all.data(), count * sizeof(float)) == 0,
                 "all_reduce gives the same bits on every rank", "ranks 0 and ", p, " have different sums");
}

/// Several operations are begun before the first is finished, and the memory of the first is used again at once.
template <class Communicator> void check_overlap(const Communicator& c, std::size_t most, report& found) {
  uneven_exchange<float, Communicator> first(c, most, 3);
  uneven_exchange<std::uint32_t, Communicator> second(c, most + 1, 1);
  std::vector<std::uint64_t> sums{c.rank() + 1, 7}, all(c.size());
  const std::vector<std::uint64_t> own{c.rank() + 5};
  std::vector<std::uint32_t> even(c.size()), from(c.size());
  for (std::size_t p = 0; p < c.size(); ++p)
    even[p] = message<std::uint32_t>(c.rank(), p, most);
  {
    auto a = first.begin(c);
    auto b = second.begin(c);
    auto s = c.template begin_all_reduce<std::uint64_t>(std::span(sums));
    auto g = c.template begin_all_gather<std::uint64_t>(own, std::span(all));
    auto e = c.template begin_all_to_all<std::uint32_t>(even, std::span(from));
    auto moved = std::move(a); // they can be moved
    moved.finish();
    first.check(found, "others begun before it ended");
    b.finish();
    s.finish();
    g.finish();
    e.finish();
    static_cast<void>(first.begin(c)); // not finished: waits, and leaves the next operations as they are
  }
  second.check(found, "others begun before it ended");
  bool right = sums[0] == c.size() * (c.size() + 1) / 2 && sums[1] == 7 * c.size();
  for (std::size_t p = 0; p < c.size(); ++p)
    right = right && all[p] == p + 5 && from[p] == message<std::uint32_t>(p, c.rank(), most);
  found.expect(right, "operations that overlap keep apart", "on rank ", c.rank(), " with ", most, " rows");
}

} // namespace detail

/// Checks a communicator; all ranks call it at the same time, each with its own, and each gets a report. Ranks are
/// numbered from 0 to size() − 1; parts arrive where they belong, for even and uneven parts, empty ones and nothing at
/// all, values of 1 to 8 bytes, and messages of some 100,000 values; sums are right and have the same bits on every
/// rank; operations overlap; nothing else is written. A communicator that loses a message may hang.
template <communicator Communicator> [[nodiscard]] report check_communicator(const Communicator& c) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if (!found.expect(c.rank() < c.size(), "rank() is below size()", "they are ", c.rank(), " and ", c.size()))
      return;
    const std::vector<std::uint64_t> own{c.rank(), c.size()};
    std::vector<std::uint64_t> all(2 * c.size());
    c.template all_gather<std::uint64_t>(own, std::span(all));
    for (std::size_t p = 0; p < c.size(); ++p)
      found.expect(all[2 * p] == p && all[2 * p + 1] == c.size(), "ranks are numbered from 0 to size() - 1", "rank ",
                   c.rank(), " of ", c.size(), " hears of rank ", all[2 * p], " of ", all[2 * p + 1]);
    if (!found.ok()) // what is sent to whom would have no meaning; all ranks see this
      return;
    for (const std::size_t each : {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{1000}}) {
      detail::check_even_parts<std::uint64_t>(c, each, found);
      detail::check_even_parts<detail::three_bytes>(c, each, found);
    }
    const auto check_uneven = [&]<class T>(T, std::size_t most, std::size_t columns) {
      detail::uneven_exchange<T, Communicator> rows(c, most, columns);
      rows.wait(c);
      rows.check(found, "up to " + std::to_string(most) + " rows");
    };
    for (const std::size_t most : {std::size_t{0}, std::size_t{1}, std::size_t{6}, std::size_t{40}}) {
      check_uneven(float{}, most, 1);
      check_uneven(double{}, most, 7);
      check_uneven(std::uint32_t{}, most, 2);
      check_uneven(detail::three_bytes{}, most, 3);
    }
    check_uneven(float{}, 1000, 100);
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{33}, std::size_t{5000}}) {
      detail::check_sums<float>(c, count, found);
      detail::check_sums<double>(c, count, found);
      detail::check_sums<std::uint64_t>(c, count, found);
      detail::check_sums<std::int32_t>(c, count, found);
    }
    detail::check_same_sums(c, found);
    for (const std::size_t most : {std::size_t{1}, std::size_t{9}, std::size_t{2000}})
      detail::check_overlap(c, most, found);
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
