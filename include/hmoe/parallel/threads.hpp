// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>
#include <hmoe/parallel/shared_memory.hpp>
#include <hmoe/parallel/thread_group.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace hmoe::communicators {

/// Ranks that are threads of one process: for tests, and for the sockets of one machine. Values are copied from one
/// thread's memory to another's. Sums are taken in ascending order of ranks.
///   communicators::threads{4}.run([](const communicators::threads::member& self) { … });
class threads {
public:
  class member;

  /// hmoe::error for 0 ranks. `share_memory`: whether ranks may read each other's memory without a message.
  explicit threads(std::size_t ranks, bool share_memory = true) : ranks_(ranks), share_memory_(share_memory) {
    require(ranks != 0, "communicators::threads of 0 ranks: give at least 1");
  }
  [[nodiscard]] std::size_t size() const noexcept { return ranks_; }

  /// A communicator for each rank, for threads of your own. Each call makes a group of its own.
  [[nodiscard]] std::vector<member> members() const;

  /// f(member) for each rank on a thread of its own; returns when all have ended. When one throws, operations of the
  /// others end with an hmoe::error that names it, and its exception is rethrown; when one returns, operations of the
  /// others that it has not begun do.
  template <class F> void run(const F& f) const;

private:
  std::size_t ranks_;
  bool share_memory_;
};

/// One rank of communicators::threads: a communicator. Copies are the same rank.
class threads::member : public waiting_forms<threads::member> {
  using kind = thread_group::kind;

public:
  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] std::size_t size() const noexcept { return group_->size(); }

  class pending;
  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const;
  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                         std::span<const std::size_t> send_rows, std::span<T> receive,
                                         std::span<const std::size_t> receive_rows, std::size_t columns = 1) const;
  template <summed_value T> [[nodiscard]] pending begin_all_reduce(std::span<T> values) const;
  template <message_value T>
  [[nodiscard]] pending begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const;

  /// Says that this rank will take part in nothing more: operations of the others end with an hmoe::error that has the
  /// reason. threads::run calls it for a function that throws.
  void fail(const std::string& reason) const { group_->fail(rank_, reason); }
  /// What the ranks read of each other's memory, where that saves messages; nullptr where they may not.
  [[nodiscard]] shared_memory* shared() const noexcept { return shared_.get(); }

private:
  friend class threads;
  member(std::shared_ptr<thread_group> group, std::size_t rank, bool share_memory)
      : group_(std::move(group)),
        shared_(share_memory ? std::make_shared<shared_memory>(shared_memory::between::threads, group_->size())
                             : nullptr),
        rank_(rank) {}

  std::shared_ptr<thread_group> group_;
  std::shared_ptr<shared_memory> shared_;
  std::size_t rank_;
};

/// An operation that a rank has begun. At most thread_group::most_pending of a rank at a time.
class threads::member::pending {
public:
  pending(pending&& other) noexcept
      : self_(other.self_), own_(other.own_), receive_(other.receive_), receive_rows_(other.receive_rows_),
        add_(other.add_), number_(other.number_), open_(std::exchange(other.open_, false)) {}
  pending& operator=(pending&&) = delete;
  ~pending() { abandon(); }

  void finish() {
    if (!std::exchange(open_, false))
      return;
    self_.group_->finish(self_.rank_, number_, [&](std::span<const thread_group::part> parts) {
      for (std::size_t p = 0; p < parts.size(); ++p)
        check(p, parts[p]);
      if (own_.what == kind::sum)
        sum(parts);
      else
        copy(parts);
    });
    if (own_.what == kind::sum && own_.bytes != 0) // all have read what is overwritten here
      std::memcpy(receive_, self_.group_->scratch(self_.rank_).data(), own_.bytes);
  }

private:
  friend class member;
  using add_function = void (*)(std::byte* to, const std::byte* from, std::size_t bytes);

  pending(const member& self, const thread_group::part& own, std::byte* receive,
          std::span<const std::size_t> receive_rows = {}, add_function add = nullptr)
      : self_(self), own_(own), receive_(receive), receive_rows_(receive_rows), add_(add),
        number_(self.group_->begin(self.rank_, own)) {}

  void abandon() noexcept {
    if (std::exchange(open_, false))
      self_.group_->abandon(self_.rank_, number_);
  }
  void check(std::size_t p, const thread_group::part& other) const {
    require(other.what == own_.what, "communicators::threads: ranks ", self_.rank_, " and ", p,
            " are at different operations");
    if (own_.what == kind::rows) {
      const std::size_t sent = other.send_rows[self_.rank_], expected = receive_rows_[p];
      require(sent * other.bytes == expected * own_.bytes, "all_to_all: rank ", self_.rank_, " expects ", expected,
              " rows of ", own_.bytes, " bytes of rank ", p, ", which sends ", sent, " of ", other.bytes);
    } else {
      require(other.bytes == own_.bytes, "communicators::threads: rank ", self_.rank_, " gives ", own_.bytes,
              " bytes, rank ", p, " gives ", other.bytes, " to the same operation");
    }
  }
  void copy(std::span<const thread_group::part> parts) const {
    std::byte* to = receive_;
    for (std::size_t p = 0; p < parts.size(); ++p) {
      std::size_t first = 0, bytes = own_.bytes;
      if (own_.what == kind::equal_parts) {
        first = self_.rank_ * bytes;
      } else if (own_.what == kind::rows) {
        for (std::size_t q = 0; q < self_.rank_; ++q)
          first += parts[p].send_rows[q] * parts[p].bytes;
        bytes *= receive_rows_[p];
      }
      if (bytes != 0)
        std::memcpy(to, parts[p].send + first, bytes);
      to += bytes;
    }
  }
  void sum(std::span<const thread_group::part> parts) const {
    buffer<std::byte>& total = self_.group_->scratch(self_.rank_);
    total.resize_for_overwrite(own_.bytes);
    if (own_.bytes != 0)
      std::memcpy(total.data(), parts[0].send, own_.bytes);
    for (std::size_t p = 1; p < parts.size(); ++p)
      add_(total.data(), parts[p].send, own_.bytes);
  }

  member self_;
  thread_group::part own_;
  std::byte* receive_;
  std::span<const std::size_t> receive_rows_;
  add_function add_;
  std::uint64_t number_;
  bool open_ = true;
};

template <message_value T>
threads::member::pending threads::member::begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                                           std::span<T> receive) const {
  lengths::check_equal_parts(size(), send.size(), receive.size());
  return {*this,
          {kind::equal_parts, std::as_bytes(send).data(), send.size_bytes() / size(), {}},
          std::as_writable_bytes(receive).data()};
}
template <message_value T>
threads::member::pending threads::member::begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                                           std::span<const std::size_t> send_rows, std::span<T> receive,
                                                           std::span<const std::size_t> receive_rows,
                                                           std::size_t columns) const {
  lengths::check_rows(size(), "send", send.size(), send_rows, columns);
  lengths::check_rows(size(), "receive", receive.size(), receive_rows, columns);
  return {*this,
          {kind::rows, std::as_bytes(send).data(), columns * sizeof(T), send_rows},
          std::as_writable_bytes(receive).data(),
          receive_rows};
}
template <summed_value T> threads::member::pending threads::member::begin_all_reduce(std::span<T> values) const {
  const auto add = [](std::byte* to, const std::byte* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += sizeof(T)) {
      T sum, next;
      std::memcpy(&sum, to + i, sizeof(T));
      std::memcpy(&next, from + i, sizeof(T));
      sum = static_cast<T>(sum + next);
      std::memcpy(to + i, &sum, sizeof(T));
    }
  };
  return {*this,
          {kind::sum, std::as_bytes(values).data(), values.size_bytes(), {}},
          std::as_writable_bytes(values).data(),
          {},
          add};
}
template <message_value T>
threads::member::pending threads::member::begin_all_gather(std::span<const std::type_identity_t<T>> own,
                                                           std::span<T> all) const {
  lengths::check_gathered(size(), own.size(), all.size());
  return {*this, {kind::gather, std::as_bytes(own).data(), own.size_bytes(), {}}, std::as_writable_bytes(all).data()};
}

inline std::vector<threads::member> threads::members() const {
  const auto group = std::make_shared<thread_group>(ranks_);
  std::vector<member> all;
  for (std::size_t r = 0; r < ranks_; ++r)
    all.push_back(member(group, r, share_memory_));
  return all;
}

template <class F> void threads::run(const F& f) const {
  const std::vector<member> all = members();
  std::vector<std::exception_ptr> errors(ranks_);
  std::vector<std::thread> started;
  for (std::size_t r = 0; r < ranks_; ++r)
    started.emplace_back([&, r] {
      errors[r] = exception_of([&] { f(all[r]); });
      if (errors[r] != nullptr)
        all[r].fail(text_of(errors[r]));
      else
        all[r].group_->end(r);
    });
  for (std::thread& thread : started)
    thread.join();
  if (const std::size_t first = all[0].group_->failed_rank(); first != ranks_ && errors[first] != nullptr)
    std::rethrow_exception(errors[first]);
  for (const std::exception_ptr& error : errors) // of those that a rank's own fail() stopped
    if (error != nullptr)
      std::rethrow_exception(error);
}

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
