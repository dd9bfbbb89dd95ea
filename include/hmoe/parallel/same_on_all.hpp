// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/checksum.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Whether ranks that work on one layer were made alike, and in what they differ.
namespace hmoe::communicators {

/// Something of a rank as a text, which must be the same on all ranks.
struct described {
  std::string_view what; ///< "the router"
  std::string text;
};

/// Collective: hmoe::error on every rank, with both texts, where one of the texts differs between ranks. All ranks give
/// as many.
template <communicator Communicator>
void require_same(const Communicator& ranks, std::span<const described> own, std::string_view who) {
  if (ranks.size() == 1)
    return;
  const std::size_t count = own.size();
  std::vector<std::uint64_t> sums(count), all(count * ranks.size());
  for (std::size_t i = 0; i < count; ++i) {
    checksum sum;
    sum.add(std::as_bytes(std::span(own[i].text)));
    sums[i] = sum.value();
  }
  ranks.template all_gather<std::uint64_t>(sums, std::span(all));
  std::size_t item = count, rank = 0; // the same on all ranks
  for (std::size_t i = 0; i < count && item == count; ++i)
    for (std::size_t p = 1; p < ranks.size() && item == count; ++p)
      if (all[p * count + i] != all[i]) {
        item = i;
        rank = p;
      }
  if (item == count)
    return;
  // Only now do texts travel.
  const std::string& text = own[item].text;
  const std::vector<std::uint64_t> length{text.size()};
  std::vector<std::uint64_t> lengths(ranks.size());
  ranks.template all_gather<std::uint64_t>(length, std::span(lengths));
  const std::vector<std::size_t> sent(ranks.size(), text.size()), received(lengths.begin(), lengths.end());
  std::string out, in;
  for (std::size_t p = 0; p < ranks.size(); ++p) {
    out += text;
    in.append(received[p], ' ');
  }
  ranks.template all_to_all<char>(std::span<const char>(out), sent, std::span(in), received);
  std::size_t begin = 0;
  for (std::size_t p = 0; p < rank; ++p)
    begin += received[p];
  fail(std::string(who) + ": ranks differ in " + std::string(own[item].what) + ": rank 0 has " +
       in.substr(0, received[0]) + ", rank " + std::to_string(rank) + " has " + in.substr(begin, received[rank]));
}

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
