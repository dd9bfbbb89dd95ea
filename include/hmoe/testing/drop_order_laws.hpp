// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace hmoe::testing {

/// What an order of dropping promises.
struct drop_order_options {
  bool token_by_token = true; ///< the priority of an entry does not depend on the tokens behind its own
  std::size_t tokens = 40;
  std::size_t experts = 5;
};

namespace detail {

/// A tape after routing: random logits, and weights that float and double hold alike.
template <class T> class routed_tape {
public:
  routed_tape(std::size_t tokens, std::size_t experts) {
    router_trace<T>& trace = tape_.trace();
    trace.resize(tokens, experts, 0, true);
    trace.set_inputs({.noise = noise_source{seed{29}, 4}});
    for (std::size_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (std::size_t e = 0; e < experts; ++e) {
        const auto z = static_cast<float>(normal(seed{27}, 0, t * experts + e));
        trace.logits()(t, e) = static_cast<T>(z);
        sum += static_cast<double>(z * z);
      }
      for (std::size_t e = 0; e < experts; ++e) {
        const auto z = static_cast<double>(trace.logits()(t, e));
        trace.probabilities()(t, e) = static_cast<T>(static_cast<float>(z * z / sum));
      }
    }
    auto& assigned = tape_.assignment();
    assigned.resize_tokens(tokens);
    const auto chosen = [](std::size_t t, std::size_t e) { return (t * t + 3 * e) % 5 < 3; };
    std::size_t entries = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts; ++e)
        entries += chosen(t, e) ? 1 : 0;
      assigned.offsets()[t + 1] = static_cast<index_t>(entries);
    }
    assigned.resize_entries();
    std::size_t entry = 0;
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t e = 0; e < experts; ++e)
        if (chosen(t, e)) {
          assigned.experts()[entry] = static_cast<index_t>(e);
          assigned.weights()[entry] = static_cast<T>((t * 7 + e * 5) % 16 + 1) / T(16); // ties among them
          ++entry;
        }
  }

  template <class Order> [[nodiscard]] std::vector<double> priorities(const Order& order) const {
    std::vector<double> all;
    const auto offsets = tape_.assignment().offsets();
    for (std::size_t t = 0; t + 1 < offsets.size(); ++t)
      for (std::size_t a = offsets[t]; a < offsets[t + 1]; ++a)
        all.push_back(static_cast<double>(order.priority(tape_, t, a)));
    return all;
  }

private:
  tape<T> tape_;
};

} // namespace detail

/// Checks an order of dropping on a random batch: the same entries get the same priorities every time, whatever tokens
/// come behind them; and tapes of float and double with the same numbers order them alike.
template <drop_order Order>
[[nodiscard]] report check_drop_order(const Order& order, const drop_order_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    const detail::routed_tape<float> narrow(options.tokens, options.experts);
    const detail::routed_tape<double> wide(options.tokens, options.experts);
    const std::vector<double> of_float = narrow.priorities(order), of_double = wide.priorities(order);
    found.expect(
        repeatable([&] { return narrow.priorities(order); }) && repeatable([&] { return wide.priorities(order); }) &&
            same_bits(detail::routed_tape<double>(options.tokens, options.experts).priorities(order), of_double),
        "gives the same priorities every time",
        "the same batch again, in another tape, or on another thread, got others");
    const auto last = [](double priority) {
      return std::isnan(priority) ? -std::numeric_limits<double>::infinity() : priority;
    };
    for (std::size_t a = 0; a < of_float.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        found.expect((last(of_float[a]) < last(of_float[b])) == (last(of_double[a]) < last(of_double[b])) &&
                         (last(of_float[a]) > last(of_float[b])) == (last(of_double[a]) > last(of_double[b])),
                     "float and double are ordered alike", "entries ", b, " and ", a, " have priorities ", of_float[b],
                     " and ", of_float[a], " in float, ", of_double[b], " and ", of_double[a], " in double");
    for (std::size_t tokens = 0; tokens < options.tokens && options.token_by_token; ++tokens) {
      const std::vector<double> fewer = detail::routed_tape<double>(tokens, options.experts).priorities(order);
      const std::vector<double> same(of_double.begin(), of_double.begin() + std::ssize(fewer));
      found.expect(same_bits(fewer, same), "does not depend on the tokens behind", "in a batch of ", tokens,
                   " tokens a priority is another than in one of ", options.tokens, ", ",
                   largest_difference(fewer, same));
    }
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
