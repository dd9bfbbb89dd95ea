// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/limited.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/row_exchange.hpp>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

namespace detail {

template <class Capacity, class Order, spare_rows Spare, class After>
std::bool_constant<!std::same_as<Capacity, capacity::no_capacity>>
limits_rows(const limited<Capacity, Order, Spare, After>*);
std::false_type limits_rows(const void*);

/// A number that two placements have in common only by accident.
[[nodiscard]] inline std::uint64_t fingerprint(const expert_placement& placed) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325; // FNV-1a over words
  const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3; };
  add(placed.ranks());
  for (std::size_t e = 0; e < placed.experts(); ++e) {
    add(placed.replicas(e).size());
    for (const replica& r : placed.replicas(e)) {
      add(r.rank);
      add(std::bit_cast<std::uint64_t>(r.share));
    }
  }
  return hash;
}

} // namespace detail

/// What the strategies that run experts on several ranks have in common: a communicator, a placement, and the strategy
/// that runs the experts of a rank.
template <communicator Communicator, class Inner> class across_ranks {
  static_assert(!decltype(detail::limits_rows(static_cast<const Inner*>(nullptr)))::value,
                "hmoe::dispatch::expert_parallel: Inner has a capacity, which would drop entries by what other ranks "
                "send: pass a dropless strategy, for instance dispatch::sorted{}");

public:
  [[nodiscard]] const Communicator& ranks() const noexcept { return ranks_; }
  [[nodiscard]] const expert_placement& placed() const noexcept { return placed_; }
  [[nodiscard]] const Inner& inner() const noexcept { return inner_; }

  /// Rows are computed at other ranks, and what this one keeps of those that it gets is not in the tape's arrays.
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits&) noexcept {
    return 0;
  }

protected:
  /// Collective: hmoe::error on every rank where the placements or the numbers of chunks differ, or a placement is for
  /// another number of ranks.
  across_ranks(Communicator ranks, expert_placement placed, Inner inner, std::size_t chunks)
      : ranks_(std::move(ranks)), placed_(std::move(placed)), inner_(std::move(inner)) {
    const std::vector<std::uint64_t> own{detail::fingerprint(placed_), placed_.experts(), placed_.ranks(), chunks};
    std::vector<std::uint64_t> all(own.size() * ranks_.size());
    ranks_.template all_gather<std::uint64_t>(own, std::span(all));
    for (std::size_t p = 0; p < ranks_.size(); ++p) {
      const std::uint64_t* other = all.data() + p * own.size();
      require(other[2] == ranks_.size(), "expert_parallel: the placement of rank ", p, " is for ", other[2],
              " ranks, the communicator has ", ranks_.size());
      require(other[1] == own[1] && other[0] == own[0], "expert_parallel: ranks ", p, " and ", ranks_.rank(),
              " have different placements, of ", other[1], " and ", own[1], " experts");
      require(other[3] == chunks, "expert_parallel: rank ", p, " overlaps ", other[3], " chunks of tokens, rank ",
              ranks_.rank(), " overlaps ", chunks);
    }
  }

  template <class Experts> void check_experts(const Experts& experts) const {
    require(experts.size() == placed_.experts(), "expert_parallel: the placement is of ", placed_.experts(),
            " experts, the layer has ", experts.size());
  }
  template <class T> static std::span<T> values_of(matrix<T>& m) noexcept { return {m.data(), m.size()}; }

  /// The rows of tokens to the ranks that need them.
  template <execution_context Context, class T>
  void send_rows(const Context& ctx, const row_exchange& exchange, matrix_view<const T> from, matrix_view<T> out,
                 matrix<T>& in, probes::direction direction) const {
    begin_rows(ctx, exchange, from, out, in, direction).finish();
  }
  template <execution_context Context, class T>
  [[nodiscard]] auto begin_rows(const Context& ctx, const row_exchange& exchange, matrix_view<const T> from,
                                matrix_view<T> out, matrix<T>& in, probes::direction direction) const {
    hmoe::for_each_row(
        ctx, out.rows(),
        [&](std::size_t i) { std::ranges::copy(from.row(exchange.tokens_out()[i]), out.row(i).begin()); },
        probes::row<Context>(probes::stage::gather, direction, static_cast<double>(2 * out.cols() * sizeof(T))));
    return ranks_.template begin_all_to_all<T>(std::span<const T>(out.data(), out.size()), exchange.rows_out(),
                                               values_of(in), exchange.rows_in(), from.cols());
  }

  Communicator ranks_;
  expert_placement placed_;
  Inner inner_;
};

} // namespace hmoe::dispatch
