// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/checksum.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/batch_selections/token_ids.hpp>

#include <cstddef>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::routing {

/// A token's experts come from a table that somebody made, for instance one that balances by word frequency (Hash
/// Layers, Roller et al. 2021, arXiv 2106.04426, section 3.2): row v of table[V×k] holds the experts of vocabulary id
/// v. Needs routing_inputs::token_ids.
class hash_table {
public:
  hash_table(std::vector<index_t> table, std::size_t k) : table_(std::move(table)), k_(k) {
    require(k >= 1 && !table_.empty() && table_.size() % k == 0, "a hash table of ", table_.size(),
            " values is not made of rows of k = ", k);
  }
  /// V, the number of vocabulary ids that the table has.
  [[nodiscard]] std::size_t vocabulary() const noexcept { return table_.size() / k_; }
  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return k_; }
  /// k, V and a checksum of the table.
  [[nodiscard]] std::string identity() const {
    checksum sum;
    sum.add(std::as_bytes(std::span(table_)));
    return "k = " + std::to_string(k_) + " vocabulary = " + std::to_string(vocabulary()) +
           " checksum = " + std::to_string(sum.value());
  }
  void validate(std::size_t experts) const {
    require(k_ <= experts, "hash_table with k = ", k_, " for ", experts, " experts: k must be 1 to ", experts);
    for (std::size_t i = 0; i < table_.size(); ++i) {
      require(table_[i] < experts, "hash_table sends id ", i / k_, " to expert ", table_[i], " of ", experts);
      for (std::size_t j = i / k_ * k_; j < i; ++j)
        require(table_[j] != table_[i], "hash_table sends id ", i / k_, " to expert ", table_[i], " twice");
    }
  }
  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource*) const {
    const auto ids = detail::token_ids_of(trace);
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      counts[t] = 0;
      if (!trace.is_valid(t))
        continue;
      require(ids[t] < table_.size() / k_, "token ", t, " has vocabulary id ", ids[t], ", the hash table ends at ",
              table_.size() / k_);
      for (std::size_t j = 0; j < k_; ++j)
        chosen(t, j) = table_[ids[t] * k_ + j];
      counts[t] = static_cast<index_t>(k_);
    }
  }

private:
  std::vector<index_t> table_;
  std::size_t k_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
