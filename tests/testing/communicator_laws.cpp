// SPDX-License-Identifier: MIT
#include <hmoe/parallel/threads.hpp>
#include <hmoe/testing/communicator_laws.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {
enum class wrong {
  nothing,
  rank,
  even_parts,
  uneven_parts,
  columns,
  last_value,
  local_sum,
  sum_in_own_order,
  order_of_ranks,
  written_beside,
  sent_changes,
  finishes_late,
  throws
};

/// Ranks that are threads, with one thing wrong.
class faulty_rank : public hmoe::communicators::waiting_forms<faulty_rank> {
  using member = hmoe::communicators::threads::member;

public:
  faulty_rank(member self, wrong fault) : self_(std::move(self)), fault_(fault) {}
  [[nodiscard]] std::size_t rank() const { return fault_ == wrong::rank ? size() - 1 - self_.rank() : self_.rank(); }
  [[nodiscard]] std::size_t size() const { return self_.size(); }

  /// finish() runs what is to be wrong with the result.
  template <class F> class pending {
  public:
    pending(member::pending real, F spoil) : real_(std::move(real)), spoil_(std::move(spoil)) {}
    void finish() {
      real_.finish();
      spoil_();
    }

  private:
    member::pending real_;
    F spoil_;
  };

  template <class T> auto begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    if (fault_ == wrong::throws)
      hmoe::fail("out of order");
    return pending(self_.begin_all_to_all<T>(send, receive), [=, fault = fault_] {
      if (fault == wrong::even_parts && receive.size() > 1)
        std::swap(receive[0], receive[receive.size() / 2]);
    });
  }
  template <class T>
  auto begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<const std::size_t> send_rows,
                        std::span<T> receive, std::span<const std::size_t> receive_rows,
                        std::size_t columns = 1) const {
    return pending(self_.begin_all_to_all<T>(send, send_rows, receive, receive_rows, columns), [=, fault = fault_] {
      if (receive.empty())
        return;
      if (fault == wrong::uneven_parts && receive_rows[0] != 0)
        std::swap(receive[0], receive[receive.size() - 1]);
      if (fault == wrong::columns && columns > 2)
        receive[columns - 1] = receive[0];
      if (fault == wrong::last_value && receive.size() > 50000)
        receive[receive.size() - 1] = {};
      if (fault == wrong::written_beside)
        receive.data()[receive.size()] = {};
      if (fault == wrong::sent_changes && !send.empty())
        const_cast<T&>(send[0]) = {}; // NOLINT: a fault
    });
  }
  template <class T> auto begin_all_reduce(std::span<T> values) const {
    const std::vector<T> own(values.begin(), values.end());
    return pending(self_.begin_all_reduce<T>(values), [=, self = self_, fault = fault_] {
      if (fault == wrong::local_sum)
        std::ranges::copy(own, values.begin());
      if constexpr (std::is_same_v<T, float>) // the last bit
        if (fault == wrong::sum_in_own_order && self.rank() == 1 && values.size() == 500)
          values[7] = std::nextafter(values[7], T(100));
      if (fault == wrong::finishes_late && values.size() == 2)
        std::ranges::copy(own, values.begin());
    });
  }
  template <class T> auto begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    return pending(self_.begin_all_gather<T>(own, all), [=, fault = fault_] {
      if (fault == wrong::order_of_ranks && own.size() == 5)
        std::ranges::reverse(all);
    });
  }

private:
  member self_;
  wrong fault_;
};

std::string found_with(wrong fault) {
  std::vector<std::string> found(3);
  hmoe::communicators::threads(3).run([&](const auto& self) {
    found[self.rank()] = hmoe::testing::check_communicator(faulty_rank(self, fault)).text();
  });
  return found[0] + found[1] + found[2];
}
} // namespace

TEST_CASE("each fault of a communicator is found") {
  CHECK(found_with(wrong::nothing) == "");
  const auto finds = [](wrong fault, const std::string& law) {
    CAPTURE(law);
    const std::string text = found_with(fault);
    CAPTURE(text);
    CHECK(text.find(law) != std::string::npos);
  };
  finds(wrong::rank, "ranks are numbered from 0 to size() - 1");
  finds(wrong::even_parts, "all_to_all brings each rank's part");
  finds(wrong::uneven_parts, "all_to_all brings each rank's rows, rank by rank");
  finds(wrong::columns, "all_to_all brings each rank's rows, rank by rank");
  finds(wrong::last_value, "all_to_all brings each rank's rows, rank by rank");
  finds(wrong::local_sum, "all_reduce adds up the values of all ranks");
  finds(wrong::sum_in_own_order, "all_reduce gives the same bits on every rank");
  finds(wrong::order_of_ranks, "all_gather brings each rank's values, rank by rank");
  finds(wrong::written_beside, "nothing but the received values is written");
  finds(wrong::sent_changes, "nothing but the received values is written");
  finds(wrong::finishes_late, "operations that overlap keep apart");
  finds(wrong::throws, "works without an exception: an exception was thrown: hmoe: out of order");
}
