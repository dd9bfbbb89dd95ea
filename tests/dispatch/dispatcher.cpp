// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/execution/context.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

namespace {
using context = hmoe::context<hmoe::backends::reference, hmoe::executors::serial>;
template <class T> using rows_type = hmoe::vector_view<const hmoe::expert_rows<T>>;

/// All that a strategy needs of experts.
struct experts {
  using value_type = float;
  std::size_t size() const { return 2; }
  std::size_t d_model() const { return 3; }
  std::size_t width(std::size_t) const { return 4; }
  std::size_t saved_per_row(std::size_t) const { return 5; }
  void forward_rows(const context&, rows_type<float>) const {}
  void backward_rows(const context&, rows_type<float>, experts&) const {}
  template <class Context> bool gathers_rows(const Context&) const { return false; }
  template <class Context> void lay_out_forward_rows(const Context&, const hmoe::row_limits&, bool) const {}
  template <class Context> void lay_out_backward_rows(const Context&, const hmoe::row_limits&) const {}
};
struct of_integers : experts {
  using value_type = int;
};
struct changed_by_forward : experts {
  void forward_rows(const context&, rows_type<float>) {}
};
struct without_widths : experts {
  void width(std::size_t) const = delete;
};
struct without_layout : experts {
  void lay_out_backward_rows() const = delete;
};

struct without_slots : hmoe::dispatch::looped {
  template <class Experts> void slots(const Experts&, const hmoe::batch_limits&) const = delete;
};
struct with_slots_of_text : hmoe::dispatch::looped {
  template <class Experts> std::string slots(const Experts&, const hmoe::batch_limits&) const { return {}; }
};
} // namespace

TEST_CASE("what a strategy needs of experts") {
  static_assert(hmoe::dispatched_experts<experts, context>);
  static_assert(!hmoe::dispatched_experts<experts, hmoe::backends::reference>); // no context
  static_assert(!hmoe::dispatched_experts<of_integers, context>);
  static_assert(!hmoe::dispatched_experts<changed_by_forward, context>);
  static_assert(!hmoe::dispatched_experts<without_widths, context>);
  static_assert(!hmoe::dispatched_experts<without_layout, context>);
}

TEST_CASE("what a layer needs of a strategy") {
  static_assert(hmoe::dispatcher<hmoe::dispatch::looped, context, experts>);
  static_assert(!hmoe::dispatcher<without_slots, context, experts>);
  static_assert(!hmoe::dispatcher<with_slots_of_text, context, experts>);
  static_assert(!hmoe::dispatcher<experts, context, experts>);
}
