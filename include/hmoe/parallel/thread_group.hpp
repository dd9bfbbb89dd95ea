// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <vector>

/// What the members of communicators::threads share.
namespace hmoe::communicators {

/// Operations of a group of threads: each rank says where its part is when it begins one, and reads the parts of the
/// others, where they are, when it finishes it. Nobody leaves an operation before all have read.
class thread_group {
public:
  /// Operations that a rank may have begun and not finished.
  static constexpr std::size_t most_pending = 16;

  enum class kind : unsigned char { equal_parts, rows, sum, gather };
  /// What a rank brings to an operation.
  struct part {
    kind what = kind::equal_parts;
    const std::byte* send = nullptr;
    std::size_t bytes = 0;                    ///< of a row (rows), a part (equal_parts), all values (sum, gather)
    std::span<const std::size_t> send_rows{}; ///< rows to each rank
  };

  explicit thread_group(std::size_t ranks) : next_(ranks), scratch_(ranks) {
    for (operation& o : ring_)
      o.parts.resize(ranks);
  }
  [[nodiscard]] std::size_t size() const noexcept { return next_.size(); }
  /// Memory of a rank for the time in which it finishes an operation.
  [[nodiscard]] buffer<std::byte>& scratch(std::size_t rank) noexcept { return scratch_[rank]; }

  /// The number of the operation.
  [[nodiscard]] std::uint64_t begin(std::size_t rank, const part& own) {
    std::unique_lock lock(mutex_);
    const std::uint64_t number = next_[rank].begun;
    require(number - next_[rank].finished < most_pending, "rank ", rank, " has begun ", most_pending,
            " operations that it has not finished: finish some");
    operation& o = ring_[number % most_pending];
    require_all_well();
    require(o.begun == 0 || o.number == number, "rank ", rank, " finishes operations in another order than they began");
    o.number = number;
    o.parts[rank] = own;
    ++next_[rank].begun;
    if (++o.begun == size())
      changed_.notify_all();
    return number;
  }

  /// Waits for all ranks to begin; read(parts), with all ranks' parts; waits for all to have read.
  template <class Read> void finish(std::size_t rank, std::uint64_t number, const Read& read) {
    std::unique_lock lock(mutex_);
    operation& o = ring_[number % most_pending];
    changed_.wait(lock, [&] { return failed() || o.begun == size() || ended_before(number) != none; });
    require_all_well();
    require(o.begun == size(), "communicators::threads: rank ", ended_before(number),
            " has ended, and takes part in no further operation");
    ++readers_;
    lock.unlock();
    const std::exception_ptr error = exception_of([&] { read(std::span<const part>(o.parts)); });
    lock.lock();
    --readers_;
    leave(rank, o);
    wait_until_read(lock, o, number);
    if (error != nullptr)
      std::rethrow_exception(error);
    require_all_well();
  }
  /// Leaves an operation without its results. Does not wait for ranks that have ended without it.
  void abandon(std::size_t rank, std::uint64_t number) noexcept {
    std::unique_lock lock(mutex_);
    operation& o = ring_[number % most_pending];
    leave(rank, o);
    wait_until_read(lock, o, number);
  }

  /// All operations of all ranks end with an hmoe::error that has this reason; of several the first counts.
  void fail(std::size_t rank, const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (failed())
      return;
    failed_rank_ = rank;
    reason_ = reason;
    changed_.notify_all();
  }
  /// This rank takes part in nothing more: operations that it has not begun end with an hmoe::error on the others.
  void end(std::size_t rank) {
    const std::lock_guard lock(mutex_);
    next_[rank].ended = true;
    changed_.notify_all();
  }
  /// The rank that failed first, size() for none.
  [[nodiscard]] std::size_t failed_rank() const {
    const std::lock_guard lock(mutex_);
    return failed() ? failed_rank_ : size();
  }

private:
  struct operation {
    std::uint64_t number = 0;
    std::size_t begun = 0, left = 0; ///< ranks; begun = 0: nobody uses this place
    std::vector<part> parts{};       ///< by rank
  };
  struct progress {
    std::uint64_t begun = 0, finished = 0;
    bool ended = false;
  };

  [[nodiscard]] bool failed() const noexcept { return failed_rank_ != none; }
  void require_all_well() const {
    require(!failed(), "communicators::threads: rank ", failed_rank_, " has failed: ", reason_);
  }
  /// A rank that has ended without this operation.
  [[nodiscard]] std::size_t ended_before(std::uint64_t number) const noexcept {
    for (std::size_t r = 0; r < next_.size(); ++r)
      if (next_[r].ended && next_[r].begun <= number)
        return r;
    return none;
  }
  void leave(std::size_t rank, operation& o) noexcept {
    ++next_[rank].finished;
    if (++o.left == size()) {
      o.begun = o.left = 0;
      changed_.notify_all();
    }
  }
  /// Until nobody reads this rank's part any more. After a failure nobody begins to read, and nobody ever reads where a
  /// rank has ended without this operation.
  void wait_until_read(std::unique_lock<std::mutex>& lock, const operation& o, std::uint64_t number) {
    if (failed())
      changed_.notify_all();
    changed_.wait(lock, [&] {
      return o.number != number || o.begun == 0 || (failed() && readers_ == 0) || ended_before(number) != none;
    });
  }

  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::array<operation, most_pending> ring_; ///< by number
  std::vector<progress> next_;               ///< by rank
  std::vector<buffer<std::byte>> scratch_;   ///< by rank
  std::size_t readers_ = 0;
  std::size_t failed_rank_ = none;
  std::string reason_;
};

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
