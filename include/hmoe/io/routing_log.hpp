// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/io/byte_reader.hpp>
#include <hmoe/io/checksum.hpp>
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/read_file.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace hmoe::io {

/// The routing of one batch by one layer, as a file keeps it: enough to replay it bit for bit (routing::replay) and to
/// compute every statistic again.
template <float_or_double T> struct routing_log_record {
  std::uint64_t step = 0; ///< of training, or of whatever the recorder counts
  std::uint64_t layer = 0;
  std::uint64_t experts = 0; ///< that an id of the assignment may name, shared ones included
  assignment<T> assigned{};
  matrix<T> logits{};                ///< [T×routed], or empty
  matrix<T> probabilities{};         ///< [T×routed], or empty
  std::vector<index_t> token_ids{};  ///< [T] vocabulary ids, or empty
  std::vector<std::uint8_t> valid{}; ///< [T] 0 where a token is padding, or empty: all tokens are valid
  bool weights_on_input = false;     ///< whether an entry's weight scales what the expert reads, not what it returns
};

/// Parts of a batch that are kept in addition to the assignment.
enum class keep_scores { no, yes };

/// A copy of what a forward pass of a layer with `experts` experts left in its tape. Token ids and the
/// mask of padding are taken from the routing inputs.
template <float_or_double T>
[[nodiscard]] routing_log_record<T> make_routing_log_record(const tape<T>& tape, std::size_t experts,
                                                            keep_scores scores = keep_scores::yes) {
  const router_trace<T>& trace = tape.trace();
  routing_log_record<T> result;
  result.experts = experts;
  result.assigned = tape.assignment();
  result.weights_on_input = tape.weights_on_input();
  const auto copy = [](matrix_view<const T> from) {
    matrix<T> to(from.rows(), from.cols());
    for (std::size_t t = 0; t < from.rows(); ++t)
      std::ranges::copy(from.row(t), to.row(t).begin());
    return to;
  };
  if (scores == keep_scores::yes) {
    result.logits = copy(trace.logits());
    result.probabilities = copy(trace.probabilities());
  }
  const auto ids = trace.inputs().token_ids;
  result.token_ids.assign(ids.begin(), ids.end());
  const auto valid = trace.inputs().valid;
  result.valid.assign(valid.begin(), valid.end());
  return result;
}

namespace detail {

/// The first 48 bytes of a file. All numbers are in the byte order of the machine that wrote it; `magic` tells another.
struct routing_log_header {
  static constexpr std::array<char, 8> expected_magic{'H', 'M', 'O', 'E', 'R', 'T', 'R', 'C'};
  static constexpr std::uint32_t current_version = 3, byte_order_mark = 0x01020304;

  std::array<char, 8> magic = expected_magic;
  std::uint32_t byte_order = byte_order_mark;
  std::uint32_t version = current_version;
  std::uint32_t scalar_bytes = 0;
  std::uint32_t reserved = 0;
  std::uint64_t records = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t payload_checksum = 0;

  [[nodiscard]] std::uint64_t own_checksum() const noexcept {
    checksum sum;
    sum.add(std::as_bytes(std::span(this, 1)));
    return sum.value();
  }
};
static_assert(sizeof(routing_log_header) == 48 && std::has_unique_object_representations_v<routing_log_header>,
              "hmoe::io: the header of a routing log has padding; a file's layout must not depend on the compiler");

} // namespace detail

/// Writes routings to a file, one after the other, as a file_writer does: the file appears under its name at close();
/// without close(), for instance when an exception passes, nothing is left behind.
/// Layout: header (48 bytes), its FNV-1a checksum (8), then the records. A record is step, layer, experts, T, entries,
/// routed or 0, number of token ids, 1 if weights are on the input or 0, number of values of the mask (8 bytes each),
/// then offsets[T+1], experts[entries], weights[entries], logits and probabilities [T×routed] if routed is not 0, token
/// ids, the mask (a byte each). Version 2 has no mask and no number for it, version 1 neither that nor the number for
/// weights on the input.
template <float_or_double T> class routing_log_writer {
public:
  explicit routing_log_writer(std::string path) : file_(std::move(path)) {
    header_.scalar_bytes = sizeof(T);
    write_header();
  }

  void add(const routing_log_record<T>& record) {
    require_open();
    record.assigned.validate(static_cast<std::size_t>(record.experts));
    const std::size_t tokens = record.assigned.tokens(), routed = record.logits.cols();
    require(record.logits.rows() == record.probabilities.rows() && routed == record.probabilities.cols(),
            "the recorded logits are ", record.logits.rows(), " x ", routed, ", the probabilities ",
            record.probabilities.rows(), " x ", record.probabilities.cols(), ": record both or none");
    require(routed == 0 || record.logits.rows() == tokens, "the recorded logits are of ", record.logits.rows(),
            " tokens, the assignment of ", tokens);
    require(record.token_ids.empty() || record.token_ids.size() == tokens, record.token_ids.size(),
            " token ids were recorded for ", tokens, " tokens");
    require(record.valid.empty() || record.valid.size() == tokens, "the recorded mask is of ", record.valid.size(),
            " tokens, the assignment of ", tokens);
    const std::array<std::uint64_t, 9> sizes{record.step,
                                             record.layer,
                                             record.experts,
                                             tokens,
                                             record.assigned.size(),
                                             routed,
                                             record.token_ids.size(),
                                             record.weights_on_input ? 1U : 0U,
                                             record.valid.size()};
    put(sizes.data(), sizes.size());
    put(record.assigned.offsets().data(), tokens + 1);
    put(record.assigned.experts().data(), record.assigned.size());
    put(record.assigned.weights().data(), record.assigned.size());
    put(record.logits.data(), record.logits.size());
    put(record.probabilities.data(), record.probabilities.size());
    put(record.token_ids.data(), record.token_ids.size());
    put(record.valid.data(), record.valid.size());
    ++header_.records;
  }
  /// Completes the file. Nothing can be added afterwards.
  void close() {
    require_open();
    header_.payload_checksum = sum_.value();
    file_.rewind();
    write_header();
    file_.commit();
    closed_ = true;
  }

private:
  void require_open() const {
    require(!closed_, file_.path(), " is complete: nothing can be added after close(); open another writer");
  }
  void write_header() {
    const std::uint64_t own = header_.own_checksum();
    file_.write(std::as_bytes(std::span(&header_, 1)));
    file_.write(std::as_bytes(std::span(&own, 1)));
  }
  template <class V> void put(const V* values, std::size_t count) {
    const auto bytes = std::as_bytes(std::span(values, count));
    file_.write(bytes);
    sum_.add(bytes);
    header_.payload_bytes += bytes.size();
  }

  file_writer file_;
  detail::routing_log_header header_;
  checksum sum_;
  bool closed_ = false;
};

/// Reads a file that a routing_log_writer of the same T wrote, now or in version 1 or 2 (in version 1 weights count as
/// those of outputs); the values have the same bits. A file that is not a routing log, or of another version, byte
/// order or T, or truncated, or altered is an hmoe::error that says which, with the numbers.
template <float_or_double T>
[[nodiscard]] std::vector<routing_log_record<T>> read_routing_log(const std::string& path) {
  using header_type = detail::routing_log_header;
  const std::vector<std::byte> bytes = read_file(path);
  constexpr std::size_t preamble = sizeof(header_type) + sizeof(std::uint64_t);
  require(bytes.size() >= preamble, path, " has ", bytes.size(), " bytes, the header of a routing log alone has ",
          preamble);
  byte_reader all(bytes, path);
  const auto header = all.value<header_type>();
  const auto own_checksum = all.value<std::uint64_t>();
  require(header.magic == header_type::expected_magic, path, " is not a routing log: it does not start with HMOERTRC");
  require(header.byte_order == header_type::byte_order_mark, path,
          " was written on a machine of another byte order, which this version does not read");
  require(header.version >= 1 && header.version <= header_type::current_version, path, " is a routing log of version ",
          header.version, ", this library reads versions 1 to ", header_type::current_version);
  require(header.own_checksum() == own_checksum, path, " is damaged: the header's checksum is ", header.own_checksum(),
          " instead of ", own_checksum);
  require(header.scalar_bytes == sizeof(T), path, " holds values of ", header.scalar_bytes, " bytes, asked for are ",
          sizeof(T), ": read it as ", header.scalar_bytes == 8 ? "double" : "float");
  require(header.payload_bytes == all.remaining(), path, " is truncated or has something behind it: ", all.remaining(),
          " bytes follow the header instead of ", header.payload_bytes);
  checksum sum;
  sum.add(std::span(bytes).subspan(preamble));
  require(sum.value() == header.payload_checksum, path, " is damaged: the checksum of its ", header.payload_bytes,
          " bytes is ", sum.value(), " instead of ", header.payload_checksum);

  std::vector<routing_log_record<T>> records;
  for (std::uint64_t r = 0; r < header.records; ++r) {
    routing_log_record<T> record;
    std::array<std::uint64_t, 9> sizes{};
    all.values(sizes.data(), sizes.size() - (header_type::current_version - header.version));
    const auto [step, layer, experts, tokens, entries, routed, ids, on_input, mask] = sizes;
    require(on_input <= 1, path, ": record ", r, " says ", on_input,
            " where 1 is for weights on the input and 0 for not");
    record.weights_on_input = on_input == 1;
    record.step = step;
    record.layer = layer;
    record.experts = experts;
    require(mask == 0 || mask == tokens, path, ": record ", r, " has a mask of ", mask, " tokens for ", tokens);
    all.require_room(tokens, sizeof(index_t)); // so that no size is made up
    record.assigned.resize_tokens(static_cast<std::size_t>(tokens));
    all.values(record.assigned.offsets().data(), tokens + 1);
    require(record.assigned.size() == entries, path, ": record ", r, " has ", entries, " entries, its offsets say ",
            record.assigned.size());
    all.require_room(entries, sizeof(index_t) + sizeof(T));
    record.assigned.resize_entries();
    all.values(record.assigned.experts().data(), entries);
    all.values(record.assigned.weights().data(), entries);
    record.assigned.validate(static_cast<std::size_t>(experts));
    if (routed != 0)
      for (matrix<T>* scores : {&record.logits, &record.probabilities}) {
        if (tokens != 0)
          all.require_room(routed, sizeof(T) * static_cast<std::size_t>(tokens));
        scores->resize_for_overwrite(static_cast<std::size_t>(tokens), static_cast<std::size_t>(routed));
        all.values(scores->data(), scores->size());
      }
    all.require_room(ids, sizeof(index_t));
    record.token_ids.resize(static_cast<std::size_t>(ids));
    all.values(record.token_ids.data(), ids);
    all.require_room(mask, 1);
    record.valid.resize(static_cast<std::size_t>(mask));
    all.values(record.valid.data(), mask);
    record.assigned.set_padding(static_cast<std::size_t>(std::ranges::count(record.valid, 0)));
    records.push_back(std::move(record));
  }
  require(all.remaining() == 0, path, " has ", all.remaining(), " bytes behind its ", header.records, " records");
  return records;
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
