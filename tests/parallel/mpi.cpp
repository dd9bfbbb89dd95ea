// SPDX-License-Identifier: MIT
// Run by mpiexec: all ranks run the same cases. See CMakeLists.txt beside it.
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/mpi.hpp>
#include <hmoe/testing/communicator_laws.hpp>

#include "parallel/failing_passes.hpp"
#include "parallel/on_ranks.hpp"
#include "support/allocation_count.hpp"
#include "support/error_of.hpp"

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace communicators = hmoe::communicators;

TEST_CASE("MPI keeps the laws of communicators") {
  CHECK(hmoe::testing::check_communicator(communicators::mpi(MPI_COMM_WORLD)).text() == "");
}

TEST_CASE("messages in pieces: as if MPI counted to 128 bytes") {
  CHECK(hmoe::testing::check_communicator(communicators::mpi(MPI_COMM_WORLD, 128)).text() == "");
}

TEST_CASE("messages of two communicators and of the program's own keep apart") {
  const communicators::mpi first(MPI_COMM_WORLD), second(MPI_COMM_WORLD);
  const std::size_t rank = first.rank(), size = first.size();
  const int next = static_cast<int>((rank + 1) % size), before = static_cast<int>((rank + size - 1) % size);
  int heard = -1;
  const int said = static_cast<int>(rank) + 100;
  std::array<MPI_Request, 2> own{};
  MPI_Irecv(&heard, 1, MPI_INT, before, MPI_ANY_TAG, MPI_COMM_WORLD, own.data());
  const std::vector<std::size_t> one(size, 1);
  std::vector<std::size_t> a(size, rank), b(size, rank + 1000), from_a(size), from_b(size);
  auto of_first = first.begin_all_to_all(a, one, std::span(from_a), one);
  auto of_second = second.begin_all_to_all(b, one, std::span(from_b), one);
  MPI_Isend(&said, 1, MPI_INT, next, 0, MPI_COMM_WORLD, own.data() + 1);
  of_second.finish();
  of_first.finish();
  MPI_Waitall(2, own.data(), MPI_STATUSES_IGNORE);
  CHECK(heard == before + 100);
  for (std::size_t p = 0; p < size; ++p) {
    CHECK(from_a[p] == p);
    CHECK(from_b[p] == p + 1000);
  }
}

TEST_CASE("operations need no memory of the heap once they have run") {
  const communicators::mpi ranks(MPI_COMM_WORLD, 128); // several messages to a rank
  const std::size_t size = ranks.size();
  std::vector<double> send(40 * size), receive(40 * size), sums(3);
  const std::vector<std::size_t> rows(size, 40);
  const auto run = [&] {
    auto exchange = ranks.begin_all_to_all<double>(send, rows, std::span(receive), rows);
    auto sum = ranks.begin_all_reduce<double>(std::span(sums));
    exchange.finish();
    sum.finish();
    ranks.all_to_all<double>(send, std::span(receive));
  };
  run();
  run();
  CHECK(support::allocations_in(run) == 0);
}

TEST_CASE("experts on the ranks of MPI: the bits of one process") {
  constexpr std::size_t whole = 61;
  const communicators::mpi ranks(MPI_COMM_WORLD, 256);                                           // rows in pieces
  const communicators::mpi apart(MPI_COMM_WORLD, 256, communicators::mpi::no_time_limit, false); // by messages only
  CHECK(communicators::share_memory(ranks)); // all ranks of tests are on one machine
  CHECK(!communicators::share_memory(apart));
  const auto begin = support::parts_of(whole, ranks.size());
  const std::size_t first = begin[ranks.rank()], last = begin[ranks.rank() + 1];
  const auto experts = support::make_unequal_experts<double>();
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::expert_placement placed = support::with_replicas(ranks.size());
  const std::array strategies{
      hmoe::dispatch::expert_parallel{ranks, placed},
      hmoe::dispatch::expert_parallel{apart, placed},
      hmoe::dispatch::expert_parallel{ranks, placed, hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{2}},
  };
  for (std::size_t i = 0; i < 2 * strategies.size(); ++i) {
    CAPTURE(i);
    const bool on_input = i >= strategies.size();
    const auto& strategy = strategies[i % strategies.size()];
    const auto expected =
        support::run_part<double>(ctx, hmoe::dispatch::sorted<>{}, experts, whole, 0, whole, on_input);
    const auto got = support::run_part<double>(ctx, strategy, experts, whole, first, last, on_input);
    const auto same = [&](const std::vector<double>& part, const std::vector<double>& all, std::size_t offset) {
      return std::equal(part.begin(), part.end(), all.begin() + static_cast<std::ptrdiff_t>(offset));
    };
    std::size_t entries = 0;
    for (std::size_t t = 0; t < first; ++t)
      for (std::size_t e = 0; e < support::parallel_experts; ++e)
        entries += support::goes_to(t, e) ? 1 : 0;
    CHECK(got.y.size() == (last - first) * support::parallel_d);
    CHECK(same(got.y, expected.y, first * support::parallel_d));
    CHECK(same(got.inferred, expected.y, first * support::parallel_d));
    CHECK(same(got.dx, expected.dx, first * support::parallel_d));
    CHECK(same(got.d_weights, expected.d_weights, entries));
  }
}

TEST_CASE("what goes wrong in a pass on one rank is an error on all, and all go on") {
  // With a time limit: a fault ends the test instead of hanging.
  const communicators::mpi ranks(MPI_COMM_WORLD, 1024, std::chrono::seconds(60));
  for (const std::size_t chunks : {1U, 2U}) {
    CAPTURE(chunks);
    const auto faults = support::faults_of_failing_passes(
        ranks,
        [&](const communicators::mpi& self, const hmoe::expert_placement& placed) {
          return hmoe::dispatch::expert_parallel{self, placed, hmoe::dispatch::sorted<>{},
                                                 hmoe::dispatch::overlap{chunks}};
        },
        8);
    for (const std::string& fault : ranks.size() == 1 ? std::vector<std::string>() : faults)
      FAIL_CHECK(fault);
  }
}

TEST_CASE("what an MPI communicator refuses") {
  CHECK(support::error_of([] { communicators::mpi refused(MPI_COMM_WORLD, 1024, std::chrono::milliseconds(0)); }) ==
        "hmoe: communicators::mpi: a time limit of 0 ms: give at least 1");
  CHECK(support::error_of([] { communicators::mpi refused(MPI_COMM_WORLD, 4); }) ==
        "hmoe: communicators::mpi: messages of at most 4 bytes: between 8 and 2147483647 are possible");
  const communicators::mpi ranks(MPI_COMM_WORLD);
  const std::size_t size = ranks.size(), rank = ranks.rank();
  std::vector<float> send(2 * size), receive(2 * size);
  std::vector<std::size_t> sent(size, 2), expected(size, 2);
  expected[rank] = 1;
  CHECK(support::error_of([&] { ranks.all_to_all(send, sent, std::span(receive).first(2 * size - 1), expected); }) ==
        "hmoe: all_to_all: rank " + std::to_string(rank) + " expects 1 rows of rank " + std::to_string(rank) +
            ", which sends 2");
#if defined(OPEN_MPI) // others end the program
  // What MPI itself reports: rank 0 expects less than rank 1 sends.
  if (size == 1)
    return;
  expected[rank] = 2;
  if (rank == 0)
    --expected[1];
  const std::string error = support::error_of(
      [&] { ranks.all_to_all(send, sent, std::span(receive).first(2 * size - (rank == 0 ? 1 : 0)), expected); });
  CHECK(error.starts_with(rank == 0 ? "hmoe: communicators::mpi: MPI_Wait: " : "no error"));
#endif
}

/// Rank 1 takes part in one operation and never comes to the next. Does not return.
static void wait_for_a_rank_that_hangs() {
  const communicators::mpi ranks(MPI_COMM_WORLD, 1024, std::chrono::milliseconds(500));
  std::vector<double> values(4, 1.0);
  ranks.all_reduce(std::span(values));
  if (ranks.rank() == 1)
    std::this_thread::sleep_for(std::chrono::minutes(2)); // the job has ended by then
  ranks.all_reduce(std::span(values));
}

int main(int argument_count, char** arguments) {
  int provided = 0;
  MPI_Init_thread(&argument_count, &arguments, MPI_THREAD_FUNNELED, &provided);
  if (argument_count == 2 && std::string_view(arguments[1]) == "--hang")
    wait_for_a_rank_that_hangs();
  doctest::Context context(argument_count, arguments);
  const int result = context.run();
  MPI_Finalize();
  return result;
}
