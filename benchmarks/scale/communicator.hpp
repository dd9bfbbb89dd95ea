// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <mpi.h>
#include <simgrid/s4u.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// Expert parallelism in the simulator SimGrid.
namespace scale {

/// A communicator inside of SimGrid's SMPI. Counts, ids and weights travel by its MPI, so that ranks know what they
/// would. Of rows of float, which have row_columns values, only the bytes do, row_bytes for each row, between the
/// simulated machines: step s of an exchange sends to rank + s and receives from rank − s (the pairwise algorithm), in
/// an actor of its own, so that it goes on while the rank computes, as messages do that no core has to push. Before
/// rows leave and after they have come, each is read and written once, at memory_bandwidth.
class communicator : public hmoe::communicators::waiting_forms<communicator> {
public:
  static constexpr std::size_t row_columns = 2; ///< so that rows differ from weights, which are single values

  communicator(double row_bytes, double memory_bandwidth)
      : row_bytes_(row_bytes), seconds_per_row_(2 * row_bytes / memory_bandwidth) {
    int rank = 0, size = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    rank_ = static_cast<std::size_t>(rank);
    size_ = static_cast<std::size_t>(size);
  }
  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  class pending {
  public:
    pending() = default;
    pending(simgrid::s4u::ActorPtr actor, double seconds_after) : actor_(std::move(actor)), after_(seconds_after) {}
    void finish() {
      if (!actor_)
        return;
      actor_->join();
      actor_ = nullptr;
      simgrid::s4u::this_actor::sleep_for(after_);
    }

  private:
    simgrid::s4u::ActorPtr actor_;
    double after_ = 0;
  };

  template <hmoe::communicators::message_value T>
  pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    hmoe::communicators::lengths::check_equal_parts(size_, send.size(), receive.size());
    const int bytes = static_cast<int>(send.size_bytes() / size_);
    MPI_Alltoall(send.data(), bytes, MPI_BYTE, receive.data(), bytes, MPI_BYTE, MPI_COMM_WORLD);
    return {};
  }
  template <hmoe::communicators::message_value T>
  pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<const std::size_t> send_rows,
                           std::span<T> receive, std::span<const std::size_t> receive_rows,
                           std::size_t columns = 1) const {
    hmoe::communicators::lengths::check_rows(size_, "send", send.size(), send_rows, columns);
    hmoe::communicators::lengths::check_rows(size_, "receive", receive.size(), receive_rows, columns);
    if constexpr (std::same_as<T, float>)
      if (columns == row_columns)
        return begin_rows(send_rows, receive_rows);
    const part from(send_rows, columns * sizeof(T)), to(receive_rows, columns * sizeof(T));
    MPI_Alltoallv(send.data(), from.counts.data(), from.begins.data(), MPI_BYTE, receive.data(), to.counts.data(),
                  to.begins.data(), MPI_BYTE, MPI_COMM_WORLD);
    return {};
  }
  template <hmoe::communicators::summed_value T> pending begin_all_reduce(std::span<T> values) const {
    static_assert(std::same_as<T, float> || std::same_as<T, double> || sizeof(T) == 8);
    const MPI_Datatype type = std::same_as<T, float> ? MPI_FLOAT : std::same_as<T, double> ? MPI_DOUBLE : MPI_UINT64_T;
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), type, MPI_SUM, MPI_COMM_WORLD);
    return {};
  }
  template <hmoe::communicators::message_value T>
  pending begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    const int bytes = static_cast<int>(own.size_bytes());
    MPI_Allgather(own.data(), bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, MPI_COMM_WORLD);
    return {};
  }

  /// Bytes to and from each rank of which nothing but their number is simulated, as rows are.
  [[nodiscard]] pending begin_bytes(const std::vector<double>& out, const std::vector<double>& in) const {
    const double seconds_per_byte = seconds_per_row_ / row_bytes_;
    simgrid::s4u::this_actor::sleep_for(seconds_per_byte * std::accumulate(out.begin(), out.end(), 0.0));
    const std::shared_ptr<arrivals> shared = next_exchange();
    const auto none = [](const std::vector<double>& bytes) {
      return std::ranges::all_of(bytes, [](double b) { return b == 0; });
    };
    if (none(out) && none(in))
      return {};
    auto exchange = [rank = rank_, size = size_, shared, out, in] {
      for (std::size_t step = 1; step < size; ++step) {
        const std::size_t to = (rank + step) % size, from = (rank + size - step) % size;
        if (out[to] != 0) {
          simgrid::s4u::Comm::sendto(host(rank), host(to), static_cast<std::uint64_t>(out[to]));
          shared->came[to][step] = true;
          if (shared->waits_for[to] == step)
            shared->awake[to]->release();
        }
        if (in[from] != 0 && !shared->came[rank][step]) {
          shared->waits_for[rank] = step;
          shared->awake[rank]->acquire();
          shared->waits_for[rank] = 0;
        }
      }
    };
    return {simgrid::s4u::Actor::create("bytes", host(rank_), std::move(exchange)),
            seconds_per_byte * std::accumulate(in.begin(), in.end(), 0.0)};
  }

private:
  struct part {
    part(std::span<const std::size_t> rows, std::size_t bytes) {
      for (const std::size_t r : rows) {
        begins.push_back(begins.empty() ? 0 : begins.back() + counts.back());
        counts.push_back(static_cast<int>(r * bytes));
      }
    }
    std::vector<int> counts, begins;
  };

  /// An exchange of rows: what has come to each rank in which step, and the step that it waits for, 0: none.
  struct arrivals {
    explicit arrivals(std::size_t ranks) : came(ranks, std::vector<bool>(ranks, false)), waits_for(ranks, 0) {
      for (std::size_t r = 0; r < ranks; ++r)
        awake.push_back(simgrid::s4u::Semaphore::create(0));
    }
    std::vector<std::vector<bool>> came;
    std::vector<std::size_t> waits_for;
    std::vector<simgrid::s4u::SemaphorePtr> awake;
  };
  /// Ranks share the memory of the process, and all begin the same exchanges in the same order.
  [[nodiscard]] std::shared_ptr<arrivals> next_exchange() const {
    static std::vector<std::size_t> begun(size_, 0);
    static std::vector<std::shared_ptr<arrivals>> exchanges;
    const std::size_t number = begun[rank_]++;
    if (number == exchanges.size()) {
      auto made = std::make_shared<arrivals>(size_);
      exchanges.push_back(made);
      return made;
    }
    return exchanges[number];
  }

  pending begin_rows(std::span<const std::size_t> out, std::span<const std::size_t> in) const {
    const auto bytes = [&](std::span<const std::size_t> rows) {
      std::vector<double> result;
      for (const std::size_t r : rows)
        result.push_back(row_bytes_ * static_cast<double>(r));
      return result;
    };
    return begin_bytes(bytes(out), bytes(in));
  }
  static simgrid::s4u::Host* host(std::size_t rank) {
    return simgrid::s4u::Host::by_name("rank-" + std::to_string(rank));
  }

  double row_bytes_, seconds_per_row_;
  std::size_t rank_ = 0, size_ = 1;
};

} // namespace scale
