// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>

namespace hmoe {

namespace capacity {

/// The limit of an expert that takes whatever comes: nothing of it is dropped, and it is not padded.
inline constexpr std::size_t unlimited = static_cast<std::size_t>(-1);

/// What a limit may depend on. Experts are the routed ones; shared experts get every token and have no limit.
struct demand {
  std::size_t tokens = 0;                ///< T of the batch, padding tokens not counted
  std::size_t entries = 0;               ///< (token, routed expert) pairs: T·K for top-k
  vector_view<const std::size_t> widths; ///< [N] hidden width of each expert; 0 for zero-cost kinds
  vector_view<const std::size_t> rows;   ///< [N] how many tokens selected each expert
};

} // namespace capacity

/// How many rows each expert may work on. Requirements:
///   limits(demand, limits[N])     writes the limit of each routed expert, or capacity::unlimited; limits above T
///                                 mean T, since a token comes at most once; they must not shrink when a batch of the
///                                 same composition grows, nor when more tokens ask for some of the experts
/// and, where it applies,
///   validate()                    throws hmoe::error when its parameters make no sense
template <class C>
concept capacity_policy = std::copyable<C> && requires(const C& c, const capacity::demand& batch,
                                                       vector_view<std::size_t> limits) { c.limits(batch, limits); };

namespace capacity {

/// What becomes of a fraction of a row. A product that misses a whole number by rounding errors only counts as whole.
enum class rounding { up, down };

namespace detail {
/// `rows` as a number of rows between `minimum` and the number of tokens.
[[nodiscard]] inline std::size_t whole_rows(double rows, rounding round, std::size_t minimum, std::size_t tokens) {
  const double slack = rows * 1e-12;
  const double whole = round == rounding::up ? std::ceil(rows - slack) : std::floor(rows + slack);
  const double bounded = std::max(whole, static_cast<double>(minimum));
  return bounded < static_cast<double>(tokens) ? static_cast<std::size_t>(bounded) : tokens;
}
inline void require_factor(double factor) {
  require(factor > 0, "a capacity factor of ", factor, ": it must be above 0");
}
} // namespace detail

/// No expert has a limit.
struct no_capacity {
  static void limits(const demand&, vector_view<std::size_t> limits) noexcept {
    std::fill(limits.begin(), limits.end(), unlimited);
  }
};

/// The same limit for all experts, in tokens: C = factor · entries / N, rounded, at least `minimum`.
///   GShard, Switch (arXiv 2101.03961): int(factor · T / N) for top-1            by_factor{f, 0, rounding::down}
///   MegaBlocks:                        int(factor · K·T / N)                    by_factor{f, 0, rounding::down}
///   DeepSpeed:                         max(ceil(factor · K·T / N), min)         by_factor{f, min}
struct by_factor {
  double factor = 1.25;
  std::size_t minimum = 1;
  rounding round = rounding::up;

  void validate() const { detail::require_factor(factor); }
  void limits(const demand& batch, vector_view<std::size_t> limits) const {
    const double rows = factor * (static_cast<double>(batch.entries) / static_cast<double>(limits.size()));
    std::fill(limits.begin(), limits.end(), detail::whole_rows(rows, round, minimum, batch.tokens));
  }
};

/// Another capacity for groups of `tokens` consecutive tokens of the batch: each group has limits of its own, made of
/// its own demand, so that what is dropped in one does not depend on another (GShard, arXiv 2006.16668, whose groups
/// are the parts of the batch on one device). The last group may be smaller; padding tokens count for places in a group
/// and not for its demand. The size of a group must be given: per_group<>{.tokens = 1024, .inner = {1.25}}.
template <capacity_policy Inner = by_factor> struct per_group {
  std::size_t tokens = 0; ///< 0: not given, an hmoe::error
  Inner inner{};

  void validate() const {
    require(tokens != 0, "capacity::per_group without tokens: give the number of tokens of a group, as in {.tokens = "
                         "1024}");
    if constexpr (requires { inner.validate(); })
      inner.validate();
  }
  /// Of the whole batch, at most: as many full groups as it has, or has begun.
  void limits(const demand& batch, vector_view<std::size_t> limits) const {
    validate();
    const std::size_t groups = batch.tokens / tokens + (batch.tokens % tokens == 0 ? 0 : 1);
    if (groups == 0) {
      std::fill(limits.begin(), limits.end(), std::size_t{0});
      return;
    }
    demand group = batch;
    group.tokens = std::min(tokens, batch.tokens);
    group.entries = (batch.entries * group.tokens + batch.tokens - 1) / batch.tokens;
    inner.limits(group, limits);
    for (std::size_t& limit : limits)
      if (limit != unlimited)
        limit = std::min(std::min(limit, group.tokens) * groups, batch.tokens);
  }
};

template <class C> inline constexpr bool is_per_group = false;
template <class Inner> inline constexpr bool is_per_group<per_group<Inner>> = true;

/// What by_width leaves as it is under by_factor of the same factor: the FLOPs of all experts when each works on as
/// many rows as it may, or the number of these rows.
enum class conserve { flops, rows };

/// Limits in proportion to the experts' widths h_e, so that wide experts take more tokens:
///   conserve::flops   C_e = factor · entries/N · h_e · Σh / Σh²     (Σ C_e h_e is that of by_factor)
///   conserve::rows    C_e = factor · entries/N · h_e · N_h / Σh     (Σ C_e is that of by_factor)
/// with sums over the N_h experts of a width above 0; each is rounded and at least `minimum`. Experts of width 0 cost
/// nothing and are unlimited. Throws when all widths are 0. With equal widths it is by_factor.
struct by_width {
  double factor = 1.25;
  std::size_t minimum = 1;
  rounding round = rounding::up;
  conserve total = conserve::flops;

  void validate() const { detail::require_factor(factor); }
  void limits(const demand& batch, vector_view<std::size_t> limits) const {
    double sum = 0, squares = 0, wide = 0;
    for (const std::size_t width : batch.widths) {
      const auto h = static_cast<double>(width);
      sum += h;
      squares += h * h;
      wide += h > 0 ? 1 : 0;
    }
    require(sum > 0, "capacity::by_width: all ", batch.widths.size(), " routed experts have width 0");
    const double mean_rows = factor * (static_cast<double>(batch.entries) / static_cast<double>(limits.size()));
    const double per_width = mean_rows * (total == conserve::flops ? sum / squares : wide / sum);
    for (std::size_t e = 0; e < limits.size(); ++e)
      limits[e] = batch.widths[e] == 0 ? unlimited
                                       : detail::whole_rows(per_width * static_cast<double>(batch.widths[e]), round,
                                                            minimum, batch.tokens);
  }
};

/// The same absolute limit for all experts, whatever the batch (the expert_capacity of a Switch checkpoint).
struct fixed {
  std::size_t rows = 64;

  void validate() const { require(rows >= 1, "capacity::fixed with 0 rows: an expert needs at least 1"); }
  void limits(const demand& batch, vector_view<std::size_t> limits) const noexcept {
    std::fill(limits.begin(), limits.end(), std::min(rows, batch.tokens));
  }
};

/// As many rows as the busiest expert has: drops nothing; in dispatch::padded all experts run equally many rows
/// (Tutel's capacity that adapts to the batch).
struct busiest {
  static void limits(const demand& batch, vector_view<std::size_t> limits) noexcept {
    std::size_t most = 0;
    for (const std::size_t rows : batch.rows)
      most = std::max(most, rows);
    std::fill(limits.begin(), limits.end(), most);
  }
};

/// MoE++ (arXiv 2410.07348): experts of width 0 are the zero-cost ones, N_Z of them; the N_F others get τ times as
/// much room,
///   C_F = γ τ n / (τ N_F + N_Z),   C_Z = γ n / (τ N_F + N_Z),
/// rounded, at least `minimum`. n is the number of entries; the paper prints T, which is the same for one expert per
/// token.
struct moe_plus_plus {
  double gamma = 1.1;
  double tau = 0.75;
  std::size_t minimum = 1;
  rounding round = rounding::up;

  void validate() const {
    detail::require_factor(gamma);
    require(tau > 0 && std::isfinite(tau), "capacity::moe_plus_plus with tau = ", tau,
            ": it must be finite and above 0");
  }
  void limits(const demand& batch, vector_view<std::size_t> limits) const {
    double shares = 0;
    for (const std::size_t width : batch.widths)
      shares += width == 0 ? 1 : tau;
    const double rows = gamma * (static_cast<double>(batch.entries) / shares);
    for (std::size_t e = 0; e < limits.size(); ++e)
      limits[e] = detail::whole_rows(batch.widths[e] == 0 ? rows : tau * rows, round, minimum, batch.tokens);
  }
};

} // namespace capacity
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
