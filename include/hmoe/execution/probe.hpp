// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

/// What a pass consists of, for probes that watch it. docs/profiling.md says which backend fuses which stages.
namespace probes {

/// A part of a pass. Backward, each name stands for the gradients of the same part.
enum class stage : unsigned char {
  pass,       ///< a whole pass of a layer; all other stages lie inside it
  route,      ///< logits, probabilities, choices and weights
  plan,       ///< from the assignment by token to the plan by expert
  gather,     ///< rows of tokens are copied into the order of experts
  gate_up,    ///< products with the first matrices of experts
  activation, ///< activation functions and gates
  down,       ///< products with the last matrices of experts
  expert,     ///< an expert of a kind that is not divided into the three above, as a whole
  combine,    ///< rows of experts are added up by token
  other       ///< further work on rows: outputs set to zero, inputs kept for the backward pass
};
inline constexpr std::size_t stage_count = 10;
[[nodiscard]] constexpr const char* name_of(stage s) noexcept {
  constexpr const char* names[stage_count] = {"pass",       "route", "plan",   "gather",  "gate/up",
                                              "activation", "down",  "expert", "combine", "other"};
  return names[static_cast<std::size_t>(s)];
}

enum class direction : unsigned char { forward, backward };

inline constexpr std::size_t no_expert = static_cast<std::size_t>(-1);

/// What a worker begins and ends. The numbers of all events of a stage add up to the work of the pass.
struct event {
  probes::stage stage = probes::stage::other;
  probes::direction direction = probes::direction::forward;
  std::size_t rows = 0; ///< whose work begins here: pieces that take further columns of the same rows have 0
  double bytes = 0;     ///< of weights and rows that are read and written, each once; caches are not considered
  double flops = 0;     ///< as layer.cost() counts them: a multiply-add is two, an activation none
  std::size_t expert = no_expert; ///< its id in the layer; no_expert where the rows are of several
  std::size_t worker = 0;         ///< of the executor; what the calling thread does alone counts as worker 0

  constexpr event() = default;
  constexpr event(probes::stage s, probes::direction d, std::size_t row_count = 0, double byte_count = 0,
                  double flop_count = 0, std::size_t id = no_expert, std::size_t who = 0) noexcept
      : stage(s), direction(d), rows(row_count), bytes(byte_count), flops(flop_count), expert(id), worker(who) {}

  [[nodiscard]] constexpr event by(std::size_t who) const noexcept {
    event result = *this;
    result.worker = who;
    return result;
  }
  /// The event of `count` rows by a worker, where this one is of a single row.
  [[nodiscard]] constexpr event times(std::size_t count, std::size_t who) const noexcept {
    const auto n = static_cast<double>(count);
    return {stage, direction, rows * count, bytes * n, flops * n, expert, who};
  }
};
/// No probe: nothing is called and nothing is compiled.
struct none {
  static constexpr void begin(const event&) noexcept {}
  static constexpr void end(const event&) noexcept {}
};

} // namespace probes

/// Watches the passes of a context: context{backend, executor, probe}. Requirements, for p of type P:
///   p.begin(event), p.end(event)   noexcept; called with the same event when a stage begins and ends
/// Calls come from all workers at once, but never two at once with the same event.worker, and for a worker they nest:
/// what begins last ends first. So memory per worker needs no lock. (The thread of worker 0 may be another one in the
/// next loop.)
/// Optional: p.prepare(workers), which the context calls once, with its executor's concurrency(), before any pass.
/// P can be moved. testing::check_probe (hmoe/testing/probe_laws.hpp) looks whether one disturbs the passes.
template <class P>
concept probe = std::movable<P> && requires(P& p, const probes::event& e) {
  { p.begin(e) } noexcept;
  { p.end(e) } noexcept;
};

namespace probes {

/// A context, or what takes the place of a backend, that has a probe: probe_type and probe(). place(event), where it
/// has one, completes or relabels events.
template <class O>
concept observed = requires { typename O::probe_type; } && !std::same_as<typename O::probe_type, none>;

/// A stage that begins with begin() and ends with the object's life. Where there is no probe it is empty, and what is
/// to be told is not even computed:
///   [[maybe_unused]] probes::watch<Context> watched;
///   if constexpr (probes::observed<Context>)
///     watched.begin(ctx, {probes::stage::plan, probes::direction::forward, entries});
template <class Observed> class watch {};
template <observed O> class watch<O> {
public:
  watch() = default;
  watch(const watch&) = delete;
  watch& operator=(const watch&) = delete;
  ~watch() {
    if (probe_ != nullptr)
      probe_->end(event_);
  }
  void begin(const O& from, const event& e) noexcept {
    if constexpr (requires { from.place(e); })
      event_ = from.place(e);
    else
      event_ = e;
    probe_ = &from.probe();
    probe_->begin(event_);
  }

private:
  typename O::probe_type* probe_ = nullptr;
  event event_;
};

/// The event of one row, as loops over rows take it: nothing where there is no probe.
struct no_row {};
template <class O> struct row_event {
  using type = no_row;
};
template <observed O> struct row_event<O> {
  using type = event;
};
template <class O> using row_of = typename row_event<O>::type;
template <class O>
[[nodiscard]] constexpr row_of<O> row(stage s, direction d, double bytes, std::size_t expert = no_expert) noexcept {
  if constexpr (observed<O>)
    return {s, d, 1, bytes, 0, expert};
  else
    return {};
}
template <class O> [[nodiscard]] constexpr row_of<O> other_row() noexcept {
  return probes::row<O>(stage::other, direction::forward, 0);
}

/// True for banks and backends whose passes tell their stages themselves, by `static constexpr bool observes_stages =
/// true`. The passes of others are watched as a whole, as stage::expert.
template <class B>
concept observes_stages = requires { requires B::observes_stages; };

} // namespace probes
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
