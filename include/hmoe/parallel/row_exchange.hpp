// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/placement.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <numeric>
#include <span>
#include <string_view>

namespace hmoe::dispatch {

namespace detail {
template <class T> [[nodiscard]] std::span<T> span_of(buffer<T>& values) noexcept {
  return {values.data(), values.size()};
}
template <class T> [[nodiscard]] std::size_t sum_of(const buffer<T>& values) noexcept {
  return std::accumulate(values.begin(), values.end(), std::size_t{0});
}
} // namespace detail

/// Which rows travel between ranks in a pass. A token's row goes once to each rank that computes some of its entries; a
/// result comes back for each entry. "Out" is what leaves this rank for the experts of others (and its own), "in" what
/// its experts get; both are in ascending order of the other rank, then of the token, then of the expert.
class row_exchange {
public:
  explicit row_exchange(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : rows_out_(memory), rows_in_(memory), entries_out_(memory), entries_in_(memory), tokens_(memory),
        entries_(memory), places_(memory), rows_of_(memory), experts_(memory), first_entries_(memory),
        first_rows_(memory), rows_of_tokens_(memory) {}

  /// [ranks] rows and results to and from each rank.
  [[nodiscard]] std::span<const std::size_t> rows_out() const noexcept { return {rows_out_.data(), rows_out_.size()}; }
  [[nodiscard]] std::span<const std::size_t> rows_in() const noexcept { return {rows_in_.data(), rows_in_.size()}; }
  [[nodiscard]] std::span<const std::size_t> entries_out() const noexcept {
    return {entries_out_.data(), entries_out_.size()};
  }
  [[nodiscard]] std::span<const std::size_t> entries_in() const noexcept {
    return {entries_in_.data(), entries_in_.size()};
  }
  /// The token of each row that goes out.
  [[nodiscard]] vector_view<const index_t> tokens_out() const noexcept { return tokens_.view(); }
  /// The entry of the assignment that each result is of.
  [[nodiscard]] vector_view<const index_t> results() const noexcept { return entries_.view(); }
  /// The result of each entry of the tokens, counted from their first entry a0: results()[result_of()[i]] == a0 + i;
  /// no_index for an entry that was not wanted.
  [[nodiscard]] vector_view<const index_t> result_of() const noexcept { return places_.view(); }
  /// The row that came in, and the expert, of each result that goes back.
  [[nodiscard]] vector_view<const index_t> rows_of_results_in() const noexcept { return rows_of_.view(); }
  [[nodiscard]] vector_view<const index_t> experts_in() const noexcept { return experts_.view(); }
  /// [rows in + 1] where the results of each row that came in begin.
  [[nodiscard]] vector_view<const index_t> first_entries_in() const noexcept { return first_entries_.view(); }
  /// After index_rows_of_tokens: the rows that went out for a token, in ascending order of ranks.
  [[nodiscard]] vector_view<const index_t> rows_of_token(std::size_t token) const noexcept {
    const std::size_t t = token - first_token_;
    return rows_of_tokens_.view().subview(first_rows_[t], first_rows_[t + 1] - first_rows_[t]);
  }
  [[nodiscard]] std::size_t rows_in_total() const noexcept { return detail::sum_of(rows_in_); }

  /// What a rank tells each other one before rows travel.
  struct header {
    enum class pass : std::uint32_t { forward, backward, failed };
    std::uint64_t rows = 0, entries = 0, d_model = 0;
    std::uint32_t value_bytes = 0;
    pass state = pass::forward; ///< failed: this rank takes part in nothing more of the pass
  };
  /// Tokens [first, end) of an assignment.
  struct token_range {
    std::size_t first, end;
  };
  struct all_entries {
    bool operator()(std::size_t, std::size_t) const noexcept { return true; }
  };
  /// Memory of the steps, for `entries` entries of this rank's tokens.
  class scratch {
  public:
    scratch(std::pmr::memory_resource* memory, std::size_t entries, std::size_t ranks)
        : rank_of(entries, memory), last(ranks, memory), next_row(ranks, memory), next_entry(ranks, memory),
          words_out(ranks, memory), words_in(ranks, memory), headers_out(ranks, memory), headers_in(ranks, memory),
          entries_of_row(memory), sent(memory), received(memory) {}
    [[nodiscard]] std::span<const header> sent_headers() noexcept { return detail::span_of(headers_out); }
    [[nodiscard]] std::span<header> received_headers() noexcept { return detail::span_of(headers_in); }
    /// After take_counts: for rank after rank the number of entries of each row, then the experts of all entries.
    [[nodiscard]] std::span<const index_t> lists() noexcept { return detail::span_of(sent); }

  private:
    friend class row_exchange;
    void resize_words() {
      sent.resize_for_overwrite(detail::sum_of(words_out));
      received.resize_for_overwrite(detail::sum_of(words_in));
    }

    buffer<index_t> rank_of;                  ///< of each entry
    buffer<index_t> last;                     ///< the token whose row went to a rank last
    buffer<std::size_t> next_row, next_entry; ///< by rank
    buffer<std::size_t> words_out, words_in;
    buffer<header> headers_out, headers_in;
    buffer<index_t> entries_of_row, sent, received;
  };

  /// From some tokens of an assignment, and its plan, in four steps, so that what can fail on one rank is apart from
  /// what all ranks do together. First what this rank sends: the entries for which wanted(expert, rank). `work` must
  /// have been made for all entries of these tokens.
  template <class T, class Wanted>
  void count(std::size_t self, const expert_placement& placed, const assignment<T>& assigned, const plan& by_expert,
             token_range tokens, std::size_t d_model, scratch& work, const Wanted& wanted) {
    first_entry_ = assigned.offsets()[tokens.first];
    count_out(placed, assigned, by_expert, tokens, self, work, wanted);
    for (std::size_t p = 0; p < placed.ranks(); ++p)
      work.headers_out[p] = {rows_out_[p], entries_out_[p], d_model, sizeof(T), header::pass::forward};
  }
  /// How many rows the experts of a rank may get in a pass, and have got in parts of it before.
  struct allowance {
    std::size_t most = std::numeric_limits<std::size_t>::max(), before = 0;
    std::string_view who = "expert_parallel"; ///< the strategy, a literal

    /// hmoe::error where `rank` then has more than `most`.
    void take(std::size_t rank, std::size_t rows) {
      before += rows;
      require(before <= most, who, ": rank ", rank, " gets ", before, " rows for its experts, its limit is ", most,
              ": route smaller batches, place experts by their load, or raise dispatch::most_rows");
    }
  };
  /// Second, after the headers have travelled: the room for what the others send. hmoe::error for more rows than 32-bit
  /// ids can number, and for more than are allowed.
  template <class T>
  void take_counts(std::size_t self, const assignment<T>& assigned, token_range tokens, scratch& work,
                   allowance& allowed) {
    const std::size_t count = rows_out_.size();
    rows_in_.resize_for_overwrite(count);
    entries_in_.resize_for_overwrite(count);
    for (std::size_t p = 0; p < count; ++p) {
      rows_in_[p] = work.headers_in[p].rows;
      entries_in_[p] = work.headers_in[p].entries;
    }
    require(detail::sum_of(entries_in_) < no_index, allowed.who, ": rank ", self, " gets ", detail::sum_of(entries_in_),
            " rows for its experts, too many for 32-bit ids: route smaller batches");
    allowed.take(self, detail::sum_of(entries_in_));
    // Of each row how many entries it has, then the experts of all entries, rank by rank.
    for (std::size_t p = 0; p < count; ++p) {
      work.words_out[p] = rows_out_[p] + entries_out_[p];
      work.words_in[p] = rows_in_[p] + entries_in_[p];
    }
    work.resize_words();
    write_words(assigned, tokens, work);
    rows_of_.resize_for_overwrite(detail::sum_of(entries_in_));
    experts_.resize_for_overwrite(detail::sum_of(entries_in_));
    first_entries_.resize_for_overwrite(rows_in_total() + 1);
  }
  /// Third, collective: the lists of experts.
  template <communicator Communicator> void exchange_words(const Communicator& ranks, scratch& work) const {
    ranks.template all_to_all<index_t>(detail::span_of(work.sent), detail::span_of(work.words_out),
                                       detail::span_of(work.received), detail::span_of(work.words_in));
  }
  /// Last. hmoe::error for lists that cannot be.
  void read_words(std::size_t experts, const scratch& work) {
    const index_t* next = work.received.data();
    read_lists(experts, [&](std::size_t p) {
      const index_t* const own = next;
      next += rows_in_[p] + entries_in_[p];
      return own;
    });
  }
  /// In place of the last two, where the lists of others can be read where they are: list_of(p) is that of rank p for
  /// this one, asked for in ascending order.
  template <class ListOf> void read_lists(std::size_t experts, const ListOf& list_of);

  /// All steps, for ranks of which none fails. Collective.
  template <communicator Communicator, class T>
  void build(const Communicator& ranks, const expert_placement& placed, const assignment<T>& assigned,
             const plan& by_expert, token_range tokens, std::size_t d_model, std::pmr::memory_resource* memory) {
    scratch work(memory, assigned.offsets()[tokens.end] - assigned.offsets()[tokens.first], ranks.size());
    count(ranks.rank(), placed, assigned, by_expert, tokens, d_model, work, all_entries{});
    ranks.template all_to_all<header>(work.sent_headers(), work.received_headers());
    allowance all;
    take_counts(ranks.rank(), assigned, tokens, work, all);
    exchange_words(ranks, work);
    read_words(placed.experts(), work);
  }

  void index_rows_of_tokens(token_range tokens) {
    first_token_ = tokens.first;
    first_rows_.resize_for_overwrite(tokens.end - tokens.first + 2);
    rows_of_tokens_.resize_for_overwrite(tokens_.size());
    first_rows_.fill(0);
    for (const index_t t : tokens_)
      ++first_rows_[t - first_token_ + 2];
    for (std::size_t t = 2; t < first_rows_.size(); ++t)
      first_rows_[t] += first_rows_[t - 1];
    for (std::size_t i = 0; i < tokens_.size(); ++i) // [t + 1] is where t's next row goes, and in the end where it ends
      rows_of_tokens_[first_rows_[tokens_[i] - first_token_ + 1]++] = static_cast<index_t>(i);
  }

  /// Takes what `build` and index_rows_of_tokens take at most of `memory`, where each rank has up to `tokens` tokens
  /// and `entries` entries, and this one gets up to `rows_in` rows, for its experts `results_in`.
  void lay_out(std::size_t ranks, std::size_t tokens, std::size_t entries, std::size_t rows_in, std::size_t results_in,
               std::pmr::memory_resource* memory);

private:
  template <class T, class Wanted>
  void count_out(const expert_placement& placed, const assignment<T>& assigned, const plan& by_expert,
                 token_range tokens, std::size_t self, scratch& work, const Wanted& wanted) {
    const std::size_t ranks = placed.ranks();
    rows_out_.resize_for_overwrite(ranks);
    entries_out_.resize_for_overwrite(ranks);
    rows_out_.fill(0);
    entries_out_.fill(0);
    work.last.fill(no_index);
    for (std::size_t t = tokens.first; t < tokens.end; ++t)
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        const index_t e = assigned.experts()[a];
        const std::size_t r =
            placed.rank_of(e, self, by_expert.slots()[a] - by_expert.offsets()[e], by_expert.rows_of(e));
        const bool sent = wanted(e, r);
        work.rank_of[a - first_entry_] = sent ? static_cast<index_t>(r) : no_index;
        if (!sent)
          continue;
        ++entries_out_[r];
        if (work.last[r] != t) {
          work.last[r] = static_cast<index_t>(t);
          ++rows_out_[r];
        }
      }
  }
  /// The places of rows and results, and the words that tell the other ranks.
  template <class T> void write_words(const assignment<T>& assigned, token_range tokens, scratch& work) {
    const std::size_t ranks = rows_out_.size();
    std::size_t rows = 0, entries = 0;
    for (std::size_t p = 0; p < ranks; ++p) {
      work.next_row[p] = rows;
      work.next_entry[p] = entries;
      rows += rows_out_[p];
      entries += entries_out_[p];
    }
    tokens_.resize_for_overwrite(rows);
    entries_.resize_for_overwrite(entries);
    places_.resize_for_overwrite(work.rank_of.size());
    places_.fill(no_index);
    work.entries_of_row.resize_for_overwrite(rows);
    work.last.fill(no_index);
    for (std::size_t t = tokens.first; t < tokens.end; ++t)
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        const std::size_t r = work.rank_of[a - first_entry_];
        if (r == no_index)
          continue;
        if (work.last[r] != t) {
          work.last[r] = static_cast<index_t>(t);
          const std::size_t row = work.next_row[r]++;
          tokens_[row] = static_cast<index_t>(t);
          work.entries_of_row[row] = 0;
        }
        ++work.entries_of_row[work.next_row[r] - 1];
        const std::size_t place = work.next_entry[r]++;
        entries_[place] = static_cast<index_t>(a);
        places_[a - first_entry_] = static_cast<index_t>(place);
      }
    std::size_t word = 0, row = 0, entry = 0;
    for (std::size_t p = 0; p < ranks; ++p) {
      for (std::size_t i = 0; i < rows_out_[p]; ++i)
        work.sent[word++] = work.entries_of_row[row++];
      for (std::size_t i = 0; i < entries_out_[p]; ++i)
        work.sent[word++] = assigned.experts()[entries_[entry++]];
    }
  }
  std::size_t first_entry_ = 0; ///< of the tokens
  std::size_t first_token_ = 0; ///< of those that rows_of_token knows
  buffer<std::size_t> rows_out_, rows_in_, entries_out_, entries_in_;
  buffer<index_t> tokens_, entries_, places_; ///< by row out, by result, by entry
  buffer<index_t> rows_of_, experts_;         ///< by result that goes back
  buffer<index_t> first_entries_;             ///< by row in
  buffer<index_t> first_rows_, rows_of_tokens_;
};

inline void row_exchange::lay_out(std::size_t ranks, std::size_t tokens, std::size_t entries, std::size_t rows_in,
                                  std::size_t results_in, std::pmr::memory_resource* memory) {
  rows_out_.reserve(ranks);
  entries_out_.reserve(ranks);
  rows_in_.reserve(ranks);
  entries_in_.reserve(ranks);
  const std::size_t rows = std::min(entries, tokens * ranks); // a row goes to a rank once, and for some entry
  tokens_.reserve(rows);
  entries_.reserve(entries);
  places_.reserve(entries);
  rows_of_.reserve(results_in);
  experts_.reserve(results_in);
  first_entries_.reserve(rows_in + 1);
  first_rows_.reserve(tokens + 2);
  rows_of_tokens_.reserve(rows);
  scratch work(memory, entries, ranks);
  work.entries_of_row.reserve(rows);
  work.sent.reserve(rows + entries);
  work.received.reserve(rows_in + results_in);
}
template <class ListOf> void row_exchange::read_lists(std::size_t experts, const ListOf& list_of) {
  first_entries_[0] = 0;
  std::size_t first_row = 0, entry = 0;
  for (std::size_t p = 0; p < rows_in_.size(); ++p) {
    const std::size_t end = entry + entries_in_[p];
    const index_t* const counts = list_of(p);
    const index_t* expert = counts + rows_in_[p];
    for (std::size_t i = 0; i < rows_in_[p]; ++i) {
      for (index_t n = counts[i]; n != 0; --n) {
        require(entry < end && *expert < experts, "row_exchange: rank ", p,
                " sent a list of experts that cannot be: do all ranks run the same program?");
        rows_of_[entry] = static_cast<index_t>(first_row + i);
        experts_[entry++] = *expert++;
      }
      first_entries_[first_row + i + 1] = static_cast<index_t>(entry);
    }
    require(entry == end, "row_exchange: rank ", p,
            " sent a list of experts that cannot be: do all ranks run the same program?");
    first_row += rows_in_[p];
  }
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
