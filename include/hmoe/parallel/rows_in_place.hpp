// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/parallel/row_exchange.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>

namespace hmoe::dispatch {

/// A pass of ranks that read each other's memory: nobody sends rows. The part of shared memory of a rank has
///   places, by rank ─ lists of experts ─ weights, where these are on the input ─ its tokens' rows ─ results
/// so that experts' ranks read the rows, and tokens' ranks the results, where they are. A rank takes what is its own
/// from where it is: x, and what its experts return. All is read between two meetings of the ranks.
template <class T> class rows_in_place {
public:
  explicit rows_in_place(std::pmr::memory_resource* memory) : sources_(memory), results_(memory), weights_(memory) {}

  /// After exchange.take_counts: makes room for what this rank finds, and returns the bytes that it needs of its part.
  std::size_t make_room(const row_exchange& exchange, std::size_t self, std::size_t tokens, std::size_t d_model,
                        bool on_input) {
    self_ = self;
    d_ = d_model;
    const std::size_t in = exchange.experts_in().size(), out = exchange.results().size();
    const std::size_t ranks = exchange.rows_out().size();
    sources_.resize_for_overwrite(in);
    results_.resize_for_overwrite(out);
    weights_.resize_for_overwrite(on_input ? in : 0);
    tokens_ = exchange.tokens_out().size() == exchange.rows_out()[self] ? 0 : tokens; // others read some or none
    places at{};
    std::size_t end = aligned_bytes<places>(ranks);
    const auto take = [&](std::uint64_t& begin, std::size_t bytes) {
      begin = end;
      end += bytes;
    };
    take(at.list, aligned_bytes<index_t>(2 * exchange.tokens_out().size() + out));
    take(at.weights, aligned_bytes<T>(on_input ? out : 0));
    take(at.rows, aligned_bytes<T>(tokens_ * d_));
    take(at.results, aligned_bytes<T>(in * d_));
    at_ = at;
    return end;
  }

  /// Writes what others read before experts run. `lists`: row_exchange::scratch::lists().
  template <execution_context Context>
  void publish(const Context& ctx, std::byte* part, const row_exchange& exchange, std::span<const index_t> lists,
               vector_view<const T> weights, matrix_view<const T> x) const {
    auto* const table = reinterpret_cast<places*>(part);
    auto* list = reinterpret_cast<index_t*>(part + at_.list);
    auto* const scales = reinterpret_cast<T*>(part + at_.weights);
    auto* const rows = reinterpret_cast<T*>(part + at_.rows);
    places next = at_;
    next.tokens = tokens_;
    const index_t* token = exchange.tokens_out().data();
    const index_t* word = lists.data();
    for (std::size_t p = 0; p < exchange.rows_out().size(); ++p) {
      const std::size_t rows_out = exchange.rows_out()[p], entries_out = exchange.entries_out()[p];
      table[p] = next;
      list = std::copy_n(word, rows_out + entries_out, std::copy_n(token, rows_out, list));
      token += rows_out;
      word += rows_out + entries_out;
      next.list += (2 * rows_out + entries_out) * sizeof(index_t);
      next.weights += entries_out * sizeof(T); // where there are weights
      next.results += exchange.entries_in()[p] * d_ * sizeof(T);
    }
    if (at_.weights != at_.rows)
      for (std::size_t i = 0; i < exchange.results().size(); ++i)
        scales[i] = weights[exchange.results()[i]];
    hmoe::for_each_row(
        ctx, tokens_, [&](std::size_t t) { std::ranges::copy(x.row(t), rows + t * d_); },
        probes::row<Context>(probes::stage::gather, probes::direction::forward,
                             static_cast<double>(2 * d_ * sizeof(T))));
  }

  /// This rank's results, which its experts write.
  [[nodiscard]] matrix_view<T> results_in(std::byte* part, const row_exchange& exchange) const noexcept {
    return {reinterpret_cast<T*>(part + at_.results), exchange.experts_in().size(), d_};
  }

  /// When all have published: reads the lists, and finds rows, weights and results. memory_of(p) is the part of shared
  /// memory that another rank has. hmoe::error for lists that cannot be.
  template <class MemoryOf>
  void find(const MemoryOf& memory_of, row_exchange& exchange, std::size_t experts, std::span<const index_t> own_lists,
            vector_view<const T> weights, matrix_view<const T> x, matrix_view<const T> own_results) {
    const std::size_t ranks = exchange.rows_out().size();
    const auto place_of = [&](std::size_t p) { return reinterpret_cast<const places*>(memory_of(p))[self_]; };
    std::size_t own_list = 0, own_row = 0, own_entry = 0, own_result = 0;
    for (std::size_t p = 0; p < self_; ++p) {
      own_list += exchange.rows_out()[p] + exchange.entries_out()[p];
      own_row += exchange.rows_out()[p];
      own_entry += exchange.entries_out()[p];
      own_result += exchange.entries_in()[p];
    }
    exchange.read_lists(experts, [&](std::size_t p) {
      if (p == self_)
        return own_lists.data() + own_list;
      return reinterpret_cast<const index_t*>(memory_of(p) + place_of(p).list) + exchange.rows_in()[p];
    });
    std::size_t row = 0, in = 0, out = 0;
    for (std::size_t p = 0; p < ranks; ++p) {
      const std::size_t entries_in = exchange.entries_in()[p], entries_out = exchange.entries_out()[p];
      if (p == self_) {
        for (std::size_t i = 0; i < entries_in; ++i) {
          sources_[in + i] = x.row(exchange.tokens_out()[own_row + exchange.rows_of_results_in()[in + i] - row]).data();
          if (weights_.size() != 0)
            weights_[in + i] = weights[exchange.results()[own_entry + i]];
        }
        for (std::size_t i = 0; i < entries_out; ++i)
          results_[out + i] = own_results.row(own_result + i).data();
      } else {
        const places there = place_of(p);
        const std::byte* const part = memory_of(p);
        const auto* const tokens = reinterpret_cast<const index_t*>(part + there.list);
        const auto* const rows = reinterpret_cast<const T*>(part + there.rows);
        for (std::size_t i = 0; i < entries_in; ++i) {
          const index_t token = tokens[exchange.rows_of_results_in()[in + i] - row];
          require(token < there.tokens, "rows_in_place: rank ", p,
                  " sent a list of tokens that cannot be: do all "
                  "ranks run the same program?");
          sources_[in + i] = rows + token * d_;
          if (weights_.size() != 0)
            weights_[in + i] = reinterpret_cast<const T*>(part + there.weights)[i];
        }
        for (std::size_t i = 0; i < entries_out; ++i)
          results_[out + i] = reinterpret_cast<const T*>(part + there.results) + i * d_;
      }
      row += exchange.rows_in()[p];
      in += entries_in;
      out += entries_out;
    }
  }
  /// After find: what the expert of result i that goes back reads, and the weight that scales it.
  [[nodiscard]] vector_view<const T> source(std::size_t i) const noexcept { return {sources_[i], d_}; }
  [[nodiscard]] T weight(std::size_t i) const noexcept { return weights_[i]; }
  /// The result at this place of row_exchange::results().
  [[nodiscard]] vector_view<const T> result(std::size_t place) const noexcept { return {results_[place], d_}; }

  /// Takes what make_room takes of `memory`.
  void lay_out(std::size_t results_in, std::size_t results, bool on_input) {
    sources_.reserve(results_in);
    results_.reserve(results);
    weights_.reserve(on_input ? results_in : 0);
  }

private:
  /// Where a part has what is for one rank, in bytes; and how many rows of tokens it has.
  struct places {
    std::uint64_t list = 0, weights = 0, rows = 0, results = 0, tokens = 0;
  };

  std::size_t self_ = 0, d_ = 0, tokens_ = 0;
  places at_{}; ///< in this rank's part, for rank 0
  buffer<const T*> sources_, results_;
  buffer<T> weights_;
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
