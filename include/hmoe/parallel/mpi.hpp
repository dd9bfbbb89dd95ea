// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<mpi.h>)
#error "hmoe/parallel/mpi.hpp needs MPI: install one (libopenmpi-dev) and link hmoe::mpi, or compile with mpicxx"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/shared_memory.hpp>

// The C functions are all that is used; these leave out the C++ bindings that MPI had once.
#if !defined(OMPI_SKIP_MPICXX)
#define OMPI_SKIP_MPICXX 1
#endif
#if !defined(MPICH_SKIP_MPICXX)
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::communicators {

/// MPI's type of values that are added up.
template <summed_value T> [[nodiscard]] MPI_Datatype mpi_type() noexcept {
  return type_of<T, MPI_Datatype>(MPI_FLOAT, MPI_DOUBLE, MPI_INT32_T, MPI_INT64_T, MPI_UINT32_T, MPI_UINT64_T);
}

/// Ranks of an MPI communicator, through the C functions of any MPI 3. The caller initialises MPI (MPI_THREAD_FUNNELED
/// is enough), calls from the thread that did, and finalises it. Messages go as bytes, so all ranks must be of one kind
/// of machine; those that are longer than MPI's 32-bit counts go in pieces. An error that MPI returns is an hmoe::error
/// with MPI's text; MPICH ends the program for those of messages that are waited for. The order of sums is MPI's.
/// Copies are the same communicator.
///
/// A rank that dies or hangs would leave the others waiting, and what they wait for cannot be taken back. So a rank
/// that has waited for one operation longer than the time limit says so on stderr and ends the job by MPI_Abort.
class mpi : public waiting_forms<mpi> {
public:
  static constexpr std::chrono::milliseconds no_time_limit = std::chrono::milliseconds::max();

  /// `borrowed` stays the caller's: messages go through a duplicate, so that they never meet others, which is freed
  /// with the last copy of this object, or left to MPI when that has been finalised. All ranks of `borrowed` make one
  /// together. `largest_message`: the bytes of a piece, the same on all ranks. `time_limit`: how long a rank waits for
  /// an operation; it must be longer than ranks compute between two of them. Without one it waits as MPI does.
  /// `share_memory`: whether ranks may read each other's shared memory where all are on one machine; the same on all.
  explicit mpi(MPI_Comm borrowed, std::size_t largest_message = std::size_t{1} << 30,
               std::chrono::milliseconds time_limit = no_time_limit, bool share_memory = true)
      : largest_message_(largest_message), time_limit_(time_limit) {
    int initialized = 0;
    MPI_Initialized(&initialized);
    require(initialized != 0, "communicators::mpi: MPI is not initialised: call MPI_Init_thread first");
    require(largest_message >= sizeof(double) &&
                largest_message <= static_cast<std::size_t>(std::numeric_limits<int>::max()),
            "communicators::mpi: messages of at most ", largest_message, " bytes: between ", sizeof(double), " and ",
            std::numeric_limits<int>::max(), " are possible");
    require(time_limit.count() > 0, "communicators::mpi: a time limit of ", time_limit.count(), " ms: give at least 1");
    MPI_Comm own = MPI_COMM_NULL;
    check(MPI_Comm_dup(borrowed, &own), "MPI_Comm_dup");
    comm_ = std::shared_ptr<MPI_Comm>(new MPI_Comm(own), [](MPI_Comm* comm) {
      int finalized = 0;
      MPI_Finalized(&finalized);
      if (finalized == 0)
        MPI_Comm_free(comm);
      delete comm;
    });
    check(MPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    int rank = 0, size = 0;
    check(MPI_Comm_rank(own, &rank), "MPI_Comm_rank");
    check(MPI_Comm_size(own, &size), "MPI_Comm_size");
    rank_ = static_cast<std::size_t>(rank);
    size_ = static_cast<std::size_t>(size);
    if (share_memory && on_one_machine(own, rank, size))
      shared_ = std::make_shared<shared_memory>(shared_memory::between::processes, size_);
  }

  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// The duplicate that messages go through.
  [[nodiscard]] MPI_Comm handle() const noexcept { return *comm_; }
  /// What ranks on one machine read of each other's memory; nullptr elsewhere.
  [[nodiscard]] shared_memory* shared() const noexcept { return shared_.get(); }

private:
  struct message {
    MPI_Request request;
    int other; ///< the rank it goes to or comes from, where it is one
    message(MPI_Request r, int o) noexcept : request(r), other(o) {}
  };
  /// Lists of messages of operations that have ended, so that later ones need no memory.
  class spare_lists {
  public:
    spare_lists() { lists_.reserve(most); }
    [[nodiscard]] std::vector<message> take() noexcept {
      if (lists_.empty())
        return {};
      std::vector<message> last = std::move(lists_.back());
      lists_.pop_back();
      return last;
    }
    void give(std::vector<message>&& list) noexcept {
      list.clear();
      if (lists_.size() < most)
        lists_.push_back(std::move(list));
    }

  private:
    static constexpr std::size_t most = 32;
    std::vector<std::vector<message>> lists_;
  };

public:
  class pending {
  public:
    pending(pending&&) noexcept = default;
    pending& operator=(pending&&) = delete;
    ~pending() {
      wait();
      if (spare_ != nullptr) // not moved from
        spare_->give(std::move(messages_));
    }
    void finish() { check(wait(), "MPI_Wait"); }

  private:
    friend class mpi;
    explicit pending(const mpi& own) noexcept
        : comm_(own.comm_), spare_(own.spare_), rank_(own.rank_), time_limit_(own.time_limit_),
          messages_(spare_->take()) {}

    /// One after the other, so that each error has a text of its own.
    int wait() noexcept {
      const auto begin = std::chrono::steady_clock::now();
      int first_error = MPI_SUCCESS;
      for (message& m : messages_) {
        const int result =
            time_limit_ == no_time_limit ? MPI_Wait(&m.request, MPI_STATUS_IGNORE) : wait_until(m, begin);
        if (first_error == MPI_SUCCESS)
          first_error = result;
      }
      messages_.clear();
      return first_error;
    }
    MPI_Request* add(int other = no_rank) { return &messages_.emplace_back(MPI_REQUEST_NULL, other).request; }

    static constexpr int no_rank = -1;
    int wait_until(message& m, std::chrono::steady_clock::time_point begin) const noexcept {
      for (;;) {
        int done = 0;
        if (const int result = MPI_Test(&m.request, &done, MPI_STATUS_IGNORE); result != MPI_SUCCESS || done != 0)
          return result;
        if (std::chrono::steady_clock::now() - begin > time_limit_)
          end_job(m.other);
        std::this_thread::yield();
      }
    }
    [[noreturn]] void end_job(int other) const noexcept {
      std::fprintf(stderr, "hmoe: communicators::mpi: rank %zu has waited %lld ms for ", rank_,
                   static_cast<long long>(time_limit_.count()));
      if (other == no_rank)
        std::fprintf(stderr, "the others");
      else
        std::fprintf(stderr, "rank %d", other);
      std::fprintf(stderr, ", its time limit: a rank has died or hangs, the job ends\n");
      std::fflush(stderr);
      MPI_Abort(*comm_, 1);
      std::abort();
    }

    std::shared_ptr<MPI_Comm> comm_; ///< stays as long as messages are on their way
    std::shared_ptr<spare_lists> spare_;
    std::size_t rank_;
    std::chrono::milliseconds time_limit_;
    std::vector<message> messages_;
  };

  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    lengths::check_equal_parts(size_, send.size(), receive.size());
    const std::size_t bytes = send.size_bytes() / size_;
    pending result(*this);
    if (fits(send.size_bytes())) // on all ranks or on none
      check(MPI_Ialltoall(send.data(), static_cast<int>(bytes), MPI_BYTE, receive.data(), static_cast<int>(bytes),
                          MPI_BYTE, *comm_, result.add()),
            "MPI_Ialltoall");
    else
      exchange(
          std::as_bytes(send).data(), std::as_writable_bytes(receive).data(), result,
          [&](std::size_t) { return bytes; }, [&](std::size_t) { return bytes; });
    return result;
  }

  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                         std::span<const std::size_t> send_rows, std::span<T> receive,
                                         std::span<const std::size_t> receive_rows, std::size_t columns = 1) const {
    lengths::check_rows(size_, "send", send.size(), send_rows, columns);
    lengths::check_rows(size_, "receive", receive.size(), receive_rows, columns);
    require(send_rows[rank_] == receive_rows[rank_], "all_to_all: rank ", rank_, " expects ", receive_rows[rank_],
            " rows of rank ", rank_, ", which sends ", send_rows[rank_]);
    pending result(*this);
    exchange(
        std::as_bytes(send).data(), std::as_writable_bytes(receive).data(), result,
        [&](std::size_t p) { return send_rows[p] * columns * sizeof(T); },
        [&](std::size_t p) { return receive_rows[p] * columns * sizeof(T); });
    return result;
  }

  template <summed_value T> [[nodiscard]] pending begin_all_reduce(std::span<T> values) const {
    pending result(*this);
    const std::size_t most = largest_message_ / sizeof(T);
    result.messages_.reserve(values.size() / most + 1);
    for (std::size_t first = 0; first < values.size(); first += most) {
      const std::span<T> piece = values.subspan(first, std::min(most, values.size() - first));
      check(MPI_Iallreduce(MPI_IN_PLACE, piece.data(), static_cast<int>(piece.size()), mpi_type<T>(), MPI_SUM, *comm_,
                           result.add()),
            "MPI_Iallreduce");
    }
    return result;
  }

  template <message_value T>
  [[nodiscard]] pending begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    lengths::check_gathered(size_, own.size(), all.size());
    const std::size_t bytes = own.size_bytes();
    pending result(*this);
    if (fits(all.size_bytes()))
      check(MPI_Iallgather(own.data(), static_cast<int>(bytes), MPI_BYTE, all.data(), static_cast<int>(bytes), MPI_BYTE,
                           *comm_, result.add()),
            "MPI_Iallgather");
    else
      exchange(
          std::as_bytes(own).data(), std::as_writable_bytes(all).data(), result, [&](std::size_t) { return bytes; },
          [&](std::size_t) { return bytes; }, false);
    return result;
  }

private:
  static constexpr int tag = 0;

  static void check(int result, const char* function) {
    if (result == MPI_SUCCESS)
      return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(result, text, &length) != MPI_SUCCESS)
      length = 0;
    fail(std::string("communicators::mpi: ") + function + ": " + std::string(text, static_cast<std::size_t>(length)));
  }
  [[nodiscard]] static bool on_one_machine(MPI_Comm comm, int rank, int size) {
    MPI_Comm machine = MPI_COMM_NULL;
    check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine), "MPI_Comm_split_type");
    int there = 0;
    check(MPI_Comm_size(machine, &there), "MPI_Comm_size");
    MPI_Comm_free(&machine);
    return there == size;
  }
  [[nodiscard]] bool fits(std::size_t bytes) const noexcept { return bytes <= largest_message_; }

  /// Messages from and to each rank: sent(p) and received(p) bytes, one part behind the other; or the same ones to all,
  /// where not `apart`. Each rank begins with the next one, so that not all send to the same.
  template <class Sent, class Received>
  void exchange(const std::byte* send, std::byte* receive, pending& result, const Sent& sent, const Received& received,
                bool apart = true) const {
    const auto pieces = [&](std::size_t bytes) { return (bytes + largest_message_ - 1) / largest_message_; };
    std::size_t messages = 0;
    for (std::size_t p = 0; p < size_; ++p)
      if (p != rank_)
        messages += pieces(sent(p)) + pieces(received(p));
    result.messages_.reserve(messages);
    // Where parts begin: two passes over p need no memory.
    const auto for_each_part = [&](const auto& bytes_of, bool parts_apart, const auto& f) {
      std::size_t own_begin = 0;
      for (std::size_t p = 0; p < rank_ && parts_apart; ++p)
        own_begin += bytes_of(p);
      std::size_t begin = own_begin;
      for (std::size_t p = rank_; p < size_; ++p) {
        f(p, begin, bytes_of(p));
        begin += parts_apart ? bytes_of(p) : 0;
      }
      begin = 0;
      for (std::size_t p = 0; p < rank_; ++p) {
        f(p, begin, bytes_of(p));
        begin += parts_apart ? bytes_of(p) : 0;
      }
    };
    std::byte* own_to = receive;
    for_each_part(received, true, [&](std::size_t p, std::size_t begin, std::size_t bytes) {
      if (p == rank_)
        own_to = receive + begin;
      else
        for (std::size_t first = 0; first < bytes; first += largest_message_)
          check(MPI_Irecv(receive + begin + first, static_cast<int>(std::min(largest_message_, bytes - first)),
                          MPI_BYTE, static_cast<int>(p), tag, *comm_, result.add(static_cast<int>(p))),
                "MPI_Irecv");
    });
    for_each_part(sent, apart, [&](std::size_t p, std::size_t begin, std::size_t bytes) {
      if (p == rank_)
        std::copy_n(send + begin, bytes, own_to);
      else
        for (std::size_t first = 0; first < bytes; first += largest_message_)
          check(MPI_Isend(send + begin + first, static_cast<int>(std::min(largest_message_, bytes - first)), MPI_BYTE,
                          static_cast<int>(p), tag, *comm_, result.add(static_cast<int>(p))),
                "MPI_Isend");
    });
  }

  std::shared_ptr<MPI_Comm> comm_;
  std::shared_ptr<shared_memory> shared_;
  std::shared_ptr<spare_lists> spare_ = std::make_shared<spare_lists>();
  std::size_t largest_message_, rank_ = 0, size_ = 1;
  std::chrono::milliseconds time_limit_;
};

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
