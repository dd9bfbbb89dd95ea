// SPDX-License-Identifier: MIT
#if defined(__linux__) // elsewhere processes send messages

#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/shared_memory.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/on_ranks.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace {
using hmoe::communicators::message_value;
using hmoe::communicators::shared_memory;

/// A thread that shares the memory of processes, and counts how often it sends rows.
class counting_rank : public hmoe::communicators::threads::member {
  using base = hmoe::communicators::threads::member;

public:
  counting_rank(const base& self, shared_memory& memory, std::size_t& messages)
      : base(self), memory_(&memory), messages_(&messages) {}

  [[nodiscard]] shared_memory* shared() const noexcept { return memory_; }
  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    return base::begin_all_to_all<T>(send, receive);
  }
  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                         std::span<const std::size_t> send_rows, std::span<T> receive,
                                         std::span<const std::size_t> receive_rows, std::size_t columns = 1) const {
    *messages_ += columns != 1 ? 1 : 0;
    return base::begin_all_to_all<T>(send, send_rows, receive, receive_rows, columns);
  }

private:
  shared_memory* memory_;
  std::size_t* messages_;
};

/// While it lives, files of more bytes cannot be made.
class largest_file {
public:
  explicit largest_file(std::size_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit now = before_;
    now.rlim_cur = std::min<rlim_t>(before_.rlim_max, bytes);
    setrlimit(RLIMIT_FSIZE, &now);
  }
  largest_file(const largest_file&) = delete;
  largest_file& operator=(const largest_file&) = delete;
  ~largest_file() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

private:
  rlimit before_{};
  void (*handler_)(int);
};
} // namespace

TEST_CASE("shared memory grows with the batch; without room for it rows are sent, and smaller batches still share") {
  constexpr std::size_t ranks = 2;
  const auto experts = support::make_unequal_experts<double>();
  std::vector<shared_memory> memory(ranks, {shared_memory::between::processes, ranks});
  // Runs forward passes, without a tape and with one, and backward; returns how often a rank has sent rows.
  const auto run = [&](std::size_t tokens) {
    const auto expected = support::run_part<double>(hmoe::context{hmoe::backends::reference{}},
                                                    hmoe::dispatch::sorted<>{}, experts, tokens, 0, tokens, false);
    const auto begin = support::parts_of(tokens, ranks);
    std::vector<support::part_result<double>> parts(ranks);
    std::vector<std::size_t> messages(ranks, 0);
    hmoe::communicators::threads(ranks).run([&](const hmoe::communicators::threads::member& self) {
      const std::size_t r = self.rank();
      const hmoe::dispatch::expert_parallel strategy{counting_rank(self, memory[r], messages[r]),
                                                     support::with_replicas(ranks)};
      parts[r] = support::run_part<double>(hmoe::context{hmoe::backends::reference{}}, strategy, experts, tokens,
                                           begin[r], begin[r + 1], false);
    });
    const auto got = support::joined(parts);
    CHECK(support::same_bits(got.y, expected.y));
    CHECK(support::same_bits(got.inferred, expected.y));
    CHECK(support::same_bits(got.dx, expected.dx));
    CHECK(support::same_bits(got.d_weights, expected.d_weights));
    CHECK(messages[0] == messages[1]);
    return messages[0];
  };
  constexpr std::size_t of_backward = 2, of_all = 6;
  CHECK(run(20) == of_backward);
  const std::size_t before = memory[0].bytes();
  CHECK(run(61) == of_backward);
  const std::size_t bytes = memory[0].bytes();
  CHECK(bytes > before);
  {
    const largest_file none_larger(std::max(bytes, memory[1].bytes()));
    CHECK(run(200) == of_all);
    CHECK(run(61) == of_backward);
    CHECK(memory[0].bytes() == bytes);
  }
  CHECK(run(200) == of_all); // known not to fit, so not tried again
  CHECK(run(20) == of_backward);
  CHECK(run(100) == of_backward); // that may fit, and does
  CHECK(memory[0].bytes() > bytes);
}

#endif
