// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/router_trace.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory_resource>

namespace hmoe::routing {

/// One expert for each token and the same number of tokens for each expert, with the largest sum of logits that this
/// allows (BASE layers, Lewis et al. 2021, arXiv 2103.16716; their weight is `sigmoid_of_logit`). Where N does not
/// divide T, the first T mod N experts get one more. Padding tokens and experts that are out of service (logits of −∞)
/// count in neither T nor N; a token gets an expert that is out of service for it alone only where the loads leave no
/// other way. Solved exactly, by successive shortest paths: tokens come one by
/// one, and each may push others from expert to expert, O(T (T + N²)) in the usual case; BASE itself runs an auction,
/// which comes as near as its ε. Depends on the whole batch: for training; at inference BASE uses top_k<1>.
struct balanced {
  [[nodiscard]] static constexpr std::size_t max_selected(std::size_t) noexcept { return 1; }
  static void lay_out(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t experts) {
    const scratch all(memory, tokens, experts);
  }

  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource* memory) const {
    std::fill(counts.begin(), counts.end(), index_t{0});
    solver<T> solve(trace, memory);
    for (std::size_t t = 0; t < trace.tokens(); ++t)
      if (trace.is_valid(t))
        solve.add(static_cast<index_t>(t));
    for (std::size_t e = 0; e < trace.expert_count(); ++e)
      for (const index_t t : solve.tokens_of(e)) {
        chosen(t, 0) = static_cast<index_t>(e);
        counts[t] = 1;
      }
  }

private:
  struct scratch {
    scratch(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t experts)
        : members_(tokens, memory), first_(experts + 1, memory), loads_(experts, memory), before_(experts, memory),
          mover_(experts, memory), distance_(experts, memory), move_cost_(experts * experts, memory),
          moved_(experts * experts, memory) {}

    buffer<index_t> members_, first_, loads_, before_, mover_;
    buffer<double> distance_, move_cost_;
    buffer<index_t> moved_;
  };

  /// Holds an assignment that is optimal for its loads; a token that comes in takes the cheapest way to a free place.
  template <class T> class solver : scratch {
  public:
    solver(const router_trace<T>& trace, std::pmr::memory_resource* memory)
        : scratch(memory, trace.valid_tokens(), trace.expert_count()), scores_(trace.logits()) {
      loads_.fill(0);
      std::fill(move_cost_.begin(), move_cost_.end(), std::numeric_limits<double>::infinity());
      const std::size_t n = scores_.cols(), tokens = trace.valid_tokens(), serving = trace.experts_in_service();
      first_[0] = 0;
      for (std::size_t e = 0, rank = 0; e < n; ++e) {
        const std::size_t room = trace.is_in_service(e) ? tokens / serving + (rank++ < tokens % serving ? 1 : 0) : 0;
        first_[e + 1] = first_[e] + static_cast<index_t>(room);
      }
      double largest = 0;
      for (std::size_t t = 0; t < scores_.rows(); ++t)
        for (std::size_t e = 0; e < n; ++e)
          if (trace.is_valid(t) && !trace.is_excluded(t, e))
            largest = std::max(largest, std::abs(static_cast<double>(scores_(t, e))));
      slack_ = 1e-12 * largest; // what rounding can make of a way round that gains nothing
      excluded_ = -4 * (largest + 1) * static_cast<double>(n + 1); // worse than any moves of others
    }

    [[nodiscard]] vector_view<const index_t> tokens_of(std::size_t e) const noexcept {
      return {members_.data() + first_[e], loads_[e]};
    }

    void add(index_t token) {
      const std::size_t n = scores_.cols();
      for (std::size_t e = 0; e < n; ++e) {
        distance_[e] = -score(token, e);
        before_[e] = no_index;
      }
      for (bool changed = true; changed;) { // Bellman and Ford: the optimum so far leaves no way round that gains
        changed = false;
        for (std::size_t from = 0; from < n; ++from)
          for (std::size_t to = 0; to < n; ++to)
            if (distance_[from] + move_cost_[from * n + to] < distance_[to] - slack_) {
              distance_[to] = distance_[from] + move_cost_[from * n + to];
              before_[to] = static_cast<index_t>(from);
              mover_[to] = moved_[from * n + to];
              changed = true;
            }
      }
      std::size_t end = n;
      for (std::size_t e = 0; e < n; ++e)
        if (loads_[e] < capacity(e) && (end == n || distance_[e] < distance_[end]))
          end = e;
      for (std::size_t e = end; before_[e] != no_index; e = before_[e])
        move(mover_[e], before_[e], e);
      std::size_t start = end;
      while (before_[start] != no_index)
        start = before_[start];
      members_[first_[start] + loads_[start]++] = token;
      for (std::size_t e = end;; e = before_[e]) {
        find_moves(e);
        if (before_[e] == no_index)
          break;
      }
    }

  private:
    [[nodiscard]] double score(std::size_t t, std::size_t e) const noexcept {
      const auto value = static_cast<double>(scores_(t, e));
      return value == -std::numeric_limits<double>::infinity() ? excluded_ : value;
    }
    [[nodiscard]] std::size_t capacity(std::size_t e) const noexcept { return first_[e + 1] - first_[e]; }
    void move(index_t token, std::size_t from, std::size_t to) noexcept {
      index_t* mine = members_.data() + first_[from];
      *std::find(mine, mine + loads_[from], token) = mine[loads_[from] - 1];
      --loads_[from];
      members_[first_[to] + loads_[to]++] = token;
    }
    /// For each other expert, the token of `from` that loses least by going there; ties to the lower token.
    void find_moves(std::size_t from) noexcept {
      const std::size_t n = scores_.cols();
      for (std::size_t to = 0; to < n; ++to) {
        double& least = move_cost_[from * n + to];
        index_t& token = moved_[from * n + to];
        least = std::numeric_limits<double>::infinity();
        for (const index_t t : tokens_of(from)) {
          const double cost = score(t, from) - score(t, to);
          if (to != from && (cost < least || (cost == least && t < token))) {
            least = cost;
            token = t;
          }
        }
      }
    }

    matrix_view<const T> scores_;
    double slack_ = 0, excluded_ = 0;
  };
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
