// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/guarded_memory.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>
#include <hmoe/testing/reversed_threads.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// What a dispatch strategy promises.
struct dispatch_options {
  bool bit_exact = true; ///< same bits as dispatch::dense; off: equal to `tolerance`
  double tolerance = 1e-10;
  bool drops = false; ///< it has a capacity: equal to dense without the entries that tape.plan() says were dropped
};

namespace detail {

/// Every number that a forward and a backward pass make.
struct dispatch_result {
  std::vector<double> y, inferred, dx, d_weights, gradients;
  std::vector<bool> kept; ///< entries of the assignment that some expert worked on, where drops are looked for
};

/// Whether token t goes to expert e. A plain pointer, so that there is one instantiation for all of them.
using routing_rule = bool (*)(std::size_t t, std::size_t e);

class dispatch_probe {
public:
  static constexpr std::size_t d = 6;
  using experts_type = expert_set<experts::glu_bank<double, experts::silu>, experts::mlp_bank<double, experts::gelu>>;

  dispatch_probe()
      : experts_(experts::glu_bank<double, experts::silu>(d, {1, 3, 2}, experts::biases::all),
                 experts::mlp_bank<double, experts::gelu>(d, {5, 1}, experts::biases::none)) {
    experts_.initialize(seed{3}, 0, {});
  }
  [[nodiscard]] const experts_type& experts() const noexcept { return experts_; }

  /// Sends token t to expert e when rule(t, e), with weights on what experts return, or on what they read. `only`: the
  /// entries of the assignment to leave in it; empty: all.
  template <class Dispatch>
  [[nodiscard]] dispatch_result run(const Dispatch& dispatch, std::size_t threads, std::size_t tokens,
                                    routing_rule rule, bool on_input, const std::vector<bool>& only = {}) const {
    const context ctx{backends::reference{}, reversed_threads(threads)};
    const workspace::scope scope(ctx.workspace());
    const guarded_matrix<double> x(tokens, d, random_values<double>(tokens * d, 31));
    const guarded_matrix<double> dy(tokens, d, random_values<double>(tokens * d, 32));
    guarded_matrix<double> y(tokens, d), dx(tokens, d), inferred(tokens, d);
    guarded_memory memory;
    tape<double> tape(&memory, true), inference(&memory, false);
    tape.set_weights_on_input(on_input);
    inference.set_weights_on_input(on_input);
    assign(tape.assignment(), tokens, rule, only);
    assign(inference.assignment(), tokens, rule, only);
    const std::size_t entries = tape.assignment().size();
    guarded_array<double> d_weights(entries);
    experts_type gradients = experts_;
    gradients.visit_parameters([](const parameter_info&, matrix_view<double> view) {
      std::fill_n(view.data(), view.size(), 0.25); // gradients are added to what is there
    });

    dispatch.forward(ctx, experts_, x.view(), inferred.view(), inference);
    dispatch.forward(ctx, experts_, x.view(), y.view(), tape);
    tape.input().resize_for_overwrite(tokens, d);
    for (std::size_t t = 0; t < tokens; ++t)
      std::copy_n(x.view().row(t).data(), d, tape.input().row(t).data());
    dispatch.backward(ctx, experts_, tape, dy.view(), dx.view(), d_weights.view(), gradients);

    dispatch_result result{y.values(), inferred.values(), dx.values(), d_weights.values(), {}, {}};
    for (const index_t slot : std::as_const(tape).plan().slots())
      result.kept.push_back(slot != no_index);
    gradients.visit_parameters([&](const parameter_info&, matrix_view<double> view) {
      result.gradients.insert(result.gradients.end(), view.data(), view.data() + view.size());
    });
    if (!y.margins_intact() || !inferred.margins_intact() || !dx.margins_intact())
      fail("memory beside y or dx changed");
    if (!d_weights.margins_intact())
      fail("memory beside the gradients of the weights changed");
    if (!memory.intact())
      fail("memory beside an array of the tape changed");
    if (!same_bits(x.values(), random_values<double>(tokens * d, 31)) || !x.margins_intact() ||
        !same_bits(dy.values(), random_values<double>(tokens * d, 32)) || !dy.margins_intact())
      fail("x or dy changed");
    if (tape.expert_output().rows() > dispatch.slots(experts_, batch_limits{tokens, entries, experts_.size()}))
      fail("it computed more rows than slots() announces");
    return result;
  }

private:
  void assign(assignment<double>& assigned, std::size_t tokens, routing_rule rule,
              const std::vector<bool>& only) const {
    assigned.resize_tokens(tokens);
    std::vector<index_t> ids;
    std::vector<double> weights;
    std::size_t entry = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts_.size(); ++e)
        if (rule(t, e)) {
          if (only.empty() || only[entry]) {
            ids.push_back(static_cast<index_t>(e));
            weights.push_back(0.1 + uniform(seed{5}, 33, entry));
          }
          ++entry;
        }
      assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
    }
    assigned.resize_entries();
    std::copy(ids.begin(), ids.end(), assigned.experts().data());
    std::copy(weights.begin(), weights.end(), assigned.weights().data());
  }

  experts_type experts_;
};

} // namespace detail

/// Checks a dispatch strategy against dispatch::dense with the reference backend, in y, dx, the gradients of
/// the weights and of all experts: for batches of 0 to 300 tokens, uneven routing, an expert without a token, all
/// tokens on one expert, tokens without an expert, weights on the input of experts; on 1, 2 and 3 threads; with and
/// without a recording tape; and that slots(), lay_out_forward and lay_out_backward announce enough. One with a
/// capacity must do what dense does with the entries that it keeps, and give the weights of the others gradient 0.
template <class Dispatch>
[[nodiscard]] report check_dispatch(const Dispatch& dispatch, const dispatch_options& options = {}) {
  report found;
  const detail::dispatch_probe probe;
  std::size_t dropped = 0;
  const auto equal = [&](const std::vector<double>& a, const std::vector<double>& b) {
    return options.bit_exact ? same_bits(a, b) : relative_error(a, b) <= options.tolerance;
  };
  const auto check = [&](std::size_t tokens, detail::routing_rule rule, const std::string& routing,
                         bool on_input = false) {
    found.expect_no_throw("works without an exception", [&] {
      auto result = probe.run(dispatch, 1, tokens, rule, on_input);
      const auto oracle =
          probe.run(dispatch::dense{}, 1, tokens, rule, on_input, options.drops ? result.kept : std::vector<bool>{});
      const std::string where = std::to_string(tokens) + " tokens, " + routing;
      const std::vector<double> d_weights = result.d_weights;
      for (std::size_t a = d_weights.size(); options.drops && a-- > 0;)
        if (!result.kept[a]) {
          found.expect(d_weights[a] == 0, "the weight of a dropped entry has gradient 0", "not with ", where);
          result.d_weights.erase(result.d_weights.begin() + static_cast<std::ptrdiff_t>(a));
          ++dropped;
        }
      found.expect(equal(result.y, oracle.y), "y equals the dense strategy's", "not with ", where);
      found.expect(equal(result.inferred, oracle.y), "y without a recording tape is the same", "not with ", where);
      found.expect(equal(result.dx, oracle.dx), "dx equals the dense strategy's", "not with ", where);
      found.expect(equal(result.d_weights, oracle.d_weights), "the weights' gradients equal the dense strategy's",
                   "not with ", where);
      found.expect(equal(result.gradients, oracle.gradients), "the experts' gradients equal the dense strategy's",
                   "not with ", where);
      for (const std::size_t threads : {std::size_t{2}, std::size_t{3}}) {
        const auto parallel = probe.run(dispatch, threads, tokens, rule, on_input);
        found.expect(same_bits(parallel.y, result.y) && same_bits(parallel.dx, result.dx) &&
                         same_bits(parallel.d_weights, d_weights) && same_bits(parallel.gradients, result.gradients),
                     "results do not depend on the threads", "with ", threads, " threads they do: ", where);
      }
    });
  };
  for (const std::size_t tokens : {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{64}, std::size_t{300}})
    check(tokens, [](std::size_t t, std::size_t e) { return (t * t + 3 * e) % 5 < 2; }, "two of five experts each");
  check(150, [](std::size_t t, std::size_t e) { return e != 2 && (t + e) % 3 == 0; }, "expert 2 without a token");
  check(150, [](std::size_t, std::size_t e) { return e == 3; }, "all on expert 3");
  check(20, [](std::size_t, std::size_t) { return true; }, "every expert for every token");
  check(20, [](std::size_t, std::size_t) { return false; }, "no expert for any token");
  check(100, [](std::size_t t, std::size_t e) { return (t + e) % 4 < 2; }, "weights on the input", true);

  if (options.drops)
    found.expect(dropped != 0, "drops what is beyond the capacity", "nothing was dropped in any batch");

  found.expect_no_throw("works in a layer", [&] {
    const std::size_t tokens = 200;
    const std::size_t d = detail::dispatch_probe::d;
    moe_layer layer{probe.experts(), routing::top_k_router<double>{d, 5, 2}, dispatch};
    moe_layer plain{probe.experts(), routing::top_k_router<double>{d, 5, 2}, dispatch::dense{}};
    layer.initialize(seed{9});
    plain.initialize(seed{9});
    workspace memory;
    const context ctx{backends::reference{}, reversed_threads(1), memory};
    const guarded_matrix<double> x(tokens, d, random_values<double>(tokens * d, 34));
    guarded_matrix<double> y(tokens, d), dx(tokens, d), expected(tokens, d), inferred(tokens, d);
    plain.forward(context{backends::reference{}}, x.view(), expected.view());
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x.view(), inferred.view());
    layer.forward(ctx, x.view(), y.view(), tape);
    layer.backward(ctx, tape, std::as_const(y).view(), dx.view(), gradients);
    found.expect(options.drops || (equal(inferred.values(), expected.values()) && equal(y.values(), expected.values())),
                 "a layer computes what it does with the dense strategy", "y of ", tokens, " tokens differs ",
                 largest_difference(y.values(), expected.values(), d));
    found.expect(all_finite(dx.values()) && y.margins_intact() && dx.margins_intact() && inferred.margins_intact(),
                 "a layer writes y and dx and nothing else", "dx is not finite, or memory beside them changed");
    const std::size_t announced = layer.workspace_bytes(ctx, tokens);
    found.expect(memory.peak() <= announced, "lay_out_forward and lay_out_backward announce enough", "a layer with ",
                 tokens, " tokens used ", memory.peak(), " bytes of workspace, announced are ", announced);
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
