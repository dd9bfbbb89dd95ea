// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/checksum.hpp>
#include <hmoe/core/description.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/limited.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/row_exchange.hpp>
#include <hmoe/parallel/same_on_all.hpp>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

/// The work of a pass in so many chunks of nearly the same number of tokens, or, where expert_parallel trains, of each
/// rank's experts: rows of the next chunks travel while the experts of one are run.
struct overlap {
  std::size_t chunks = 1;
};

/// At most so many rows for the experts of this rank in a pass, a token counted once for each expert that it has here:
/// memory is announced for these (moe_layer::workspace_bytes), and a pass in which more come is an hmoe::error on every
/// rank, before rows travel. Without a limit all rows of all ranks may come to one. Ranks may have different limits.
struct most_rows {
  std::size_t of_experts = std::numeric_limits<std::size_t>::max();
};

namespace detail {

template <class Capacity, class Order, spare_rows Spare, class After>
std::bool_constant<!std::same_as<Capacity, capacity::no_capacity>>
limits_rows(const limited<Capacity, Order, Spare, After>*);
std::false_type limits_rows(const void*);

/// A number that two placements have in common only by accident.
[[nodiscard]] inline std::uint64_t fingerprint(const expert_placement& placed) noexcept {
  checksum sum;
  const auto add = [&](std::uint64_t word) { sum.add(std::as_bytes(std::span(&word, 1))); };
  add(placed.ranks());
  for (std::size_t e = 0; e < placed.experts(); ++e) {
    add(placed.replicas(e).size());
    for (const replica& r : placed.replicas(e)) {
      add(r.rank);
      add(std::bit_cast<std::uint64_t>(r.share));
    }
  }
  return sum.value();
}

/// How far a rank has come in a pass.
struct pass_progress {
  bool inside = false;
  bool met = false;  ///< counts have travelled
  bool told = false; ///< all ranks have an error
};

} // namespace detail

/// What the strategies that run experts on several ranks have in common: a communicator, a placement, the strategy that
/// runs the experts of a rank, and how an error on one rank reaches the others.
///
/// Each pass begins with an exchange of counts, in which a rank says whether it has failed before. All agree whether
/// they go on in meetings of the ranks: after making room for what comes in, where ranks share memory after it has
/// grown and after the experts, too, and at the end. So an exception that one rank meets anywhere in a pass is thrown
/// there, and the others throw an hmoe::error with its text, at the latest when they have done their own part of the
/// pass; what they have written by then is unspecified, gradients included. All may go on with another pass.
template <communicator Communicator, class Inner> class across_ranks {
  static_assert(!decltype(detail::limits_rows(static_cast<const Inner*>(nullptr)))::value,
                "hmoe::dispatch::expert_parallel: Inner has a capacity, which would drop entries by what other ranks "
                "send: pass a dropless strategy, for instance dispatch::sorted{}");

public:
  [[nodiscard]] const Communicator& ranks() const noexcept { return ranks_; }
  [[nodiscard]] const expert_placement& placed() const noexcept { return placed_; }
  [[nodiscard]] const Inner& inner() const noexcept { return inner_; }
  static constexpr std::size_t most_chunks = 7;
  /// In how many chunks a pass communicates and computes.
  [[nodiscard]] std::size_t chunks() const noexcept { return chunks_; }

  /// Rows are computed at other ranks, and what this one keeps of those that it gets is not in the tape's arrays.
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits&) noexcept {
    return 0;
  }

  /// Collective, by layers: pass(), with whatever they do around forward or backward, so that an error there is told.
  template <class Pass> void run_pass(const Pass& pass) const {
    detail::pass_progress& now = *progress_;
    if (ranks_.size() == 1 || now.inside) {
      pass();
      return;
    }
    now = {.inside = true};
    const std::exception_ptr own = exception_of(pass);
    now.inside = false;
    if (now.told)
      std::rethrow_exception(own);
    if (!now.met) {
      // An error of the communicator itself does not hide the one before.
      static_cast<void>(exception_of([&] { tell_failure(own); }));
      std::rethrow_exception(own);
    }
    communicators::agree(ranks_, own, name_);
  }
  /// Collective, by layers when they are made: check(), which all ranks pass or none does; then hmoe::error on every
  /// rank where experts or routers differ in type, size or policy. An expert has one width on all ranks that have it,
  /// and elsewhere the same one, or 0 where only its own ranks have its weights. Returns the widths of all experts.
  template <class Check, class Experts, class Router>
  std::vector<std::size_t> join(const Check& check, const Experts& experts, const Router& router) const {
    std::vector<communicators::described> own(3);
    communicators::agree(ranks_, exception_of([&] {
                           check();
                           check_experts(experts);
                           own = {{"experts", descriptions::describe_experts(experts)},
                                  {"the router", descriptions::describe_router(router)},
                                  {"the strategy", std::string(name_) + " of " + descriptions::describe(inner_)}};
                         }),
                         name_);
    const std::span<const communicators::described> all(own);
    communicators::require_same(ranks_, all.last(1), "expert_parallel"); // the same text from different strategies
    communicators::require_same(ranks_, all.first(2), name_);
    return common_widths(experts);
  }
  /// Collective, by layers that draw their weights: hmoe::error on every rank where seeds or options differ.
  void join_initialization(seed key, const initialization& options) const {
    std::string text = std::to_string(key.value);
    descriptions::detail::append_number(text, "output_gain", options.output_gain);
    descriptions::detail::append_number(text, "router_stddev", options.router_stddev);
    const communicators::described own{"the seed", std::move(text)};
    communicators::require_same(ranks_, std::span(&own, 1), name_);
  }

protected:
  /// Collective: hmoe::error on every rank where the placements or the numbers of chunks differ, or a placement is for
  /// another number of ranks. `name`, a literal, is that of the strategy.
  across_ranks(std::string_view name, Communicator ranks, expert_placement placed, Inner inner, std::size_t chunks,
               std::size_t most_rows)
      : ranks_(std::move(ranks)), placed_(std::move(placed)), inner_(std::move(inner)), chunks_(chunks),
        most_rows_(most_rows), name_(name), progress_(std::make_shared<detail::pass_progress>()) {
    const std::vector<std::uint64_t> own{detail::fingerprint(placed_), placed_.experts(), placed_.ranks(), chunks};
    std::vector<std::uint64_t> all(own.size() * ranks_.size());
    ranks_.template all_gather<std::uint64_t>(own, std::span(all));
    for (std::size_t p = 0; p < ranks_.size(); ++p) {
      const std::uint64_t* other = all.data() + p * own.size();
      require(other[2] == ranks_.size(), name_, ": the placement of rank ", p, " is for ", other[2],
              " ranks, the communicator has ", ranks_.size());
      require(other[1] == own[1] && other[0] == own[0], name_, ": ranks ", p, " and ", ranks_.rank(),
              " have different placements, of ", other[1], " and ", own[1], " experts");
      require(other[3] == chunks, name_, ": rank ", p, " overlaps ", other[3], " chunks, rank ", ranks_.rank(),
              " overlaps ", chunks);
    }
    require(chunks != 0 && chunks <= most_chunks, name_, ": ", chunks, " chunks: 1 to ", most_chunks, " are possible");
  }

  template <class Experts> void check_experts(const Experts& experts) const {
    require(experts.size() == placed_.experts(), name_, ": the placement is of ", placed_.experts(),
            " experts, the layer has ", experts.size());
  }
  using header = row_exchange::header;

  /// The first exchange of a pass, in which every rank hears of every one that has failed.
  void meet(std::span<const header> out, std::span<header> in, const std::exception_ptr& own) const {
    ranks_.template all_to_all<header>(out, in);
    progress_->met = true;
    const header& mine = out[ranks_.rank()];
    for (const header& h : in)
      if (h.state == header::pass::failed) {
        progress_->told = true;
        communicators::fail_together(ranks_, own, name_);
      }
    for (std::size_t p = 0; p < in.size(); ++p) {
      const header& h = in[p];
      const bool same = h.state == mine.state && h.d_model == mine.d_model && h.value_bytes == mine.value_bytes;
      progress_->told = progress_->told || !same; // whoever differs, all see it
      require(h.state == mine.state, name_, ": rank ", p, " runs ", name_of(h.state), ", rank ", ranks_.rank(),
              " runs ", name_of(mine.state));
      require(same, name_, ": rank ", p, " runs a layer of d_model ", h.d_model, " with values of ", h.value_bytes,
              " bytes, rank ", ranks_.rank(), " one of d_model ", mine.d_model, " with values of ", mine.value_bytes);
    }
  }
  void tell_failure(const std::exception_ptr& own) const {
    const std::vector<header> out(ranks_.size(), header{.state = header::pass::failed});
    std::vector<header> in(ranks_.size());
    meet(out, in, own);
  }
  /// Every rank goes on, or none. Returns the sum of the ranks' numbers.
  std::uint64_t agree(const std::exception_ptr& own, std::uint64_t number = 0) const {
    if (ranks_.size() == 1 && own == nullptr)
      return number;
    std::uint64_t sum = 0;
    const std::exception_ptr all = exception_of([&] { sum = communicators::agree(ranks_, own, name_, number); });
    if (all == nullptr)
      return sum;
    progress_->told = true;
    std::rethrow_exception(all);
  }
  /// How many rows come from and go to each rank, for the wanted entries of some tokens; `work` is for what follows.
  template <class T, class Wanted = row_exchange::all_entries>
  void meet_forward(row_exchange& exchange, const assignment<T>& assigned, const plan& by_expert,
                    row_exchange::token_range tokens, std::size_t d_model, std::pmr::memory_resource* memory,
                    std::optional<row_exchange::scratch>& work, const Wanted& wanted = {}) const {
    if (const std::exception_ptr counted = exception_of([&] {
          work.emplace(memory, assigned.offsets()[tokens.end] - assigned.offsets()[tokens.first], ranks_.size());
          exchange.count(ranks_.rank(), placed_, assigned, by_expert, tokens, d_model, *work, wanted);
        }))
      tell_failure(counted);
    meet(work->sent_headers(), work->received_headers(), nullptr);
  }
  /// Fills `exchange` for the wanted entries of some tokens; make_room() then takes what else the pass needs, so that
  /// nobody who has begun to receive rows runs out of memory. Returns what was wrong with the lists that came in.
  template <class T, class MakeRoom, class Wanted = row_exchange::all_entries>
  [[nodiscard]] std::exception_ptr
  exchange_counts(row_exchange& exchange, const assignment<T>& assigned, const plan& by_expert,
                  row_exchange::token_range tokens, std::size_t d_model, std::pmr::memory_resource* memory,
                  row_exchange::allowance& allowed, const MakeRoom& make_room, const Wanted& wanted = {}) const {
    std::optional<row_exchange::scratch> work;
    meet_forward(exchange, assigned, by_expert, tokens, d_model, memory, work, wanted);
    agree(exception_of([&] {
      exchange.take_counts(ranks_.rank(), assigned, tokens, *work, allowed);
      make_room();
    }));
    exchange.exchange_words(ranks_, *work);
    return exception_of([&] { exchange.read_words(placed_.experts(), *work); });
  }
  /// The first exchange of a backward pass, after all room has been made.
  void meet_backward(std::size_t d_model, std::size_t value_bytes, std::pmr::memory_resource* memory) const {
    buffer<header> out(ranks_.size(), memory), in(ranks_.size(), memory);
    out.fill({0, 0, d_model, static_cast<std::uint32_t>(value_bytes), header::pass::backward});
    meet(detail::span_of(out), detail::span_of(in), nullptr);
  }
  void lay_out_meeting(std::pmr::memory_resource* memory) const {
    buffer<header> out(memory), in(memory);
    out.reserve(ranks_.size());
    in.reserve(ranks_.size());
  }
  /// Of a pass.
  [[nodiscard]] row_exchange::allowance allowance() const noexcept { return {most_rows_, 0, name_}; }
  /// Of the rows that all ranks might send, as many as this one takes.
  [[nodiscard]] std::size_t most_of(std::size_t rows) const noexcept { return std::min(rows, most_rows_); }
  template <class T> static std::span<T> values_of(matrix<T>& m) noexcept { return {m.data(), m.size()}; }

  /// The rows of tokens to the ranks that need them. Where gathering them throws, which goes to `failed` unless there
  /// is an exception already, unspecified ones travel, as the others wait for them.
  template <execution_context Context, class T>
  void send_rows(const Context& ctx, const row_exchange& exchange, matrix_view<const T> from, matrix_view<T> out,
                 matrix<T>& in, probes::direction direction, std::exception_ptr& failed) const {
    begin_rows(ctx, exchange, from, out, in, direction, failed).finish();
  }
  template <execution_context Context, class T>
  [[nodiscard]] auto begin_rows(const Context& ctx, const row_exchange& exchange, matrix_view<const T> from,
                                matrix_view<T> out, matrix<T>& in, probes::direction direction,
                                std::exception_ptr& failed) const {
    const std::exception_ptr own = exception_of([&] {
      hmoe::for_each_row(
          ctx, out.rows(),
          [&](std::size_t i) { std::ranges::copy(from.row(exchange.tokens_out()[i]), out.row(i).begin()); },
          probes::row<Context>(probes::stage::gather, direction, static_cast<double>(2 * out.cols() * sizeof(T))));
    });
    if (failed == nullptr)
      failed = own;
    return ranks_.template begin_all_to_all<T>(std::span<const T>(out.data(), out.size()), exchange.rows_out(),
                                               values_of(in), exchange.rows_in(), from.cols());
  }

  Communicator ranks_;
  expert_placement placed_;
  Inner inner_;
  std::size_t chunks_, most_rows_;

private:
  static const char* name_of(header::pass state) noexcept {
    return state == header::pass::backward ? "a backward pass" : "a forward pass";
  }
  /// Of each expert the width that its first rank gives; hmoe::error on every rank where another one has another, or
  /// another number of parameters.
  template <class Experts> [[nodiscard]] std::vector<std::size_t> common_widths(const Experts& experts) const {
    const std::size_t n = experts.size();
    const auto parameters = [&](std::size_t e) -> std::size_t {
      if constexpr (requires { requires Experts::trainable; })
        return experts.parameter_count(e);
      else
        return 0; // packed weights may differ in size between CPUs
    };
    std::vector<std::uint64_t> first(2 * n, 0); // widths, then parameters
    for (std::size_t e = 0; e < n; ++e)
      if (placed_.replicas(e)[0].rank == ranks_.rank()) {
        first[e] = experts.width(e);
        first[n + e] = parameters(e);
      }
    ranks_.template all_reduce<std::uint64_t>(std::span(first));
    communicators::agree(ranks_, exception_of([&] {
                           for (std::size_t e = 0; e < n; ++e) {
                             const std::size_t p = placed_.replicas(e)[0].rank;
                             if (experts.width(e) == 0 && !placed_.has(ranks_.rank(), e))
                               continue;
                             require(experts.width(e) == first[e], "expert ", e, " has width ", experts.width(e),
                                     " on rank ", ranks_.rank(), ", and ", first[e], " on rank ", p);
                             require(parameters(e) == first[n + e], "expert ", e, " has ", parameters(e),
                                     " parameters on rank ", ranks_.rank(), ", and ", first[n + e], " on rank ", p);
                           }
                         }),
                         name_);
    first.resize(n);
    return {first.begin(), first.end()};
  }

  std::string_view name_;                           ///< of the strategy
  std::shared_ptr<detail::pass_progress> progress_; ///< of copies, too: a rank runs one pass at a time
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
