// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/backend.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/operations.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/testing/backend_bank_laws.hpp>
#include <hmoe/testing/backend_report.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/training/adamw.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe::testing {

namespace detail {

/// Runs everything for one type of values.
template <class T, class Backend> class backend_check {
public:
  backend_check(const Backend& math, const backend_options& options, backend_report& found)
      : math_(math), options_(options), found_(found) {}

  void run() {
    for (const auto& [m, n, k] :
         {shape{0, 3, 2}, {1, 1, 1}, {3, 0, 4}, {2, 5, 0}, {5, 7, 3}, {13, 33, 17}, {64, 40, 65}})
      check_products(m, n, k);
    for (const std::size_t size : {1U, 3U, 8U, 17U, 64U, 131U}) {
      check_rows(size);
      check_activations<experts::silu, experts::gelu, experts::gelu_tanh, experts::relu, experts::squared_relu,
                        experts::linear>(size);
      check_gates(size);
      check_scores(size);
      check_selections(size);
      check_adamw(size);
    }
    backend_bank_check<T, Backend>(math_, options_, found_).run();
  }

private:
  struct shape {
    std::size_t m, n, k;
  };
  using values = std::vector<T>;
  using in = vector_view<const T>;
  using out = vector_view<T>;
  static constexpr double epsilon = std::numeric_limits<T>::epsilon();

  [[nodiscard]] values random(std::size_t size, double scale = 1) { return random_values<T>(size, ++stream_, scale); }
  /// f(output) twice, on memory that is NaN beforehand or `start`; the margins must stay.
  template <class F> [[nodiscard]] values row_of(std::string_view operation, const values& start, F&& f) {
    guarded_matrix<T> row(1, start.size(), start);
    f(row.view().row(0));
    return checked(operation, row);
  }
  [[nodiscard]] values checked(std::string_view operation, const guarded_matrix<T>& row) {
    values written = row.values();
    found_.expect(row.margins_intact(), law(operation, "writes its output only"), written.size(), " values");
    return written;
  }
  [[nodiscard]] static std::string law(std::string_view operation, std::string_view text) {
    return std::string(operation) + " " + std::string(text);
  }
  void near(std::string_view operation, const values& got, const values& expected, double scale) {
    const std::string agrees = law(operation, "agrees with the plain form");
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
      const double bound = options_.tolerance * epsilon * std::max(scale, std::abs(static_cast<double>(expected[i])));
      found_.expect(error <= bound, agrees, "value ", i, " of ", got.size(), ": got ", got[i], ", expected ",
                    expected[i]);
    }
  }

  void check_products(std::size_t m, std::size_t n, std::size_t k) {
    const guarded_matrix<T> a(m, k, random(m * k)), at(k, m, random(k * m)), b(k, n, random(k * n)),
        bt(n, k, random(n * k));
    const values start = random(m * n);
    const auto product = [&](std::string_view name, bool adds, const auto& call) {
      guarded_matrix<T> ours(m, n), expected(m, n);
      if (adds) {
        ours = guarded_matrix<T>(m, n, start);
        expected = guarded_matrix<T>(m, n, start);
      }
      call(math_, 0, m, ours.view());
      call(backends::reference{}, 0, m, expected.view());
      found_.expect(ours.margins_intact(), law(name, "writes its output only"), m, " x ", n, ", sums of ", k);
      const auto got = ours.values(), right = expected.values();
      const double bound = epsilon * static_cast<double>(k + 8) * 4 * std::sqrt(static_cast<double>(k + 1));
      const std::string agrees = law(name, "agrees with the reference");
      for (std::size_t i = 0; i < got.size(); ++i)
        found_.expect(std::abs(static_cast<double>(got[i]) - static_cast<double>(right[i])) <= bound, agrees, m, " x ",
                      n, ", sums of ", k, ": value ", i, ": got ", got[i], ", expected ", right[i]);
      if (!options_.same_bits_in_any_batch || m == 0)
        return;
      guarded_matrix<T> alone(m, n);
      if (adds)
        alone = guarded_matrix<T>(m, n, start);
      for (std::size_t r = 0; r < m; ++r)
        call(math_, r, 1, alone.view().row_block(r, 1));
      found_.expect(same_bits(alone.values(), got), law(name, "gives a row the same bits in any batch"), m, " x ", n,
                    ", sums of ", k);
    };
    product("multiply_transposed", false, [&](const auto& math, std::size_t first, std::size_t rows, matrix_view<T> c) {
      math.multiply_transposed(a.view().row_block(first, rows), bt.view(), c);
    });
    product("multiply", false, [&](const auto& math, std::size_t first, std::size_t rows, matrix_view<T> c) {
      math.multiply(a.view().row_block(first, rows), b.view(), c);
    });
    product("accumulate", true, [&](const auto& math, std::size_t first, std::size_t rows, matrix_view<T> c) {
      math.accumulate(a.view().row_block(first, rows), b.view(), c);
    });
    product("accumulate_transposed", true,
            [&](const auto& math, std::size_t first, std::size_t rows, matrix_view<T> c) {
              math.accumulate_transposed(at.view().column_block(first, rows), b.view(), c);
            });
  }

  void check_rows(std::size_t size) {
    const values a = random(size), b = random(size), start = random(size);
    const T weight = T(0.75);
    const auto both = [&](std::string_view name, double scale, const auto& call) {
      near(name, row_of(name, start, [&](out to) { call(math_, to); }),
           row_of(name, start, [&](out to) { call(backends::reference{}, to); }), scale);
    };
    both("add_scaled", 1, [&](const auto& math, out to) { rows::add_scaled(math, weight, in(a), to); });
    both("copy_scaled", 0, [&](const auto& math, out to) { rows::copy_scaled(math, weight, in(a), to); });
    const auto row = [&](std::size_t i) { return i == 0 ? in(a) : i == 1 ? in{} : in(b); };
    const auto weights = [](std::size_t i) { return T(0.5) * static_cast<T>(i + 1); };
    both("weighted_sum", 4, [&](const auto& math, out to) { rows::weighted_sum(math, 3, weights, row, to); });
    const values sum = row_of("add_scaled", values(size, T(0)), [&](out to) {
      rows::add_scaled(math_, weights(0), in(a), to);
      rows::add_scaled(math_, weights(2), in(b), to);
    });
    const values at_once =
        row_of("weighted_sum", start, [&](out to) { rows::weighted_sum(math_, 3, weights, row, to); });
    found_.expect(same_bits(sum, at_once), "weighted_sum gives the bits of add_scaled in turn", size, " values");
    both("weighted_sum", 1, [&](const auto& math, out to) { rows::weighted_sum(math, 0, weights, row, to); });
    const double dot = static_cast<double>(rows::dot(math_, in(a), in(b))),
                 expected = static_cast<double>(rows::dot(backends::reference{}, in(a), in(b)));
    found_.expect(std::abs(dot - expected) <= 8 * epsilon * static_cast<double>(size + 8),
                  "dot agrees with the plain form", size, " values: got ", dot, ", expected ", expected);
  }

  template <class... Activations> void check_activations(std::size_t size) {
    (check_activation<Activations>(size), ...);
  }
  template <class Activation> void check_activation(std::size_t size) {
    const values z = random(size, 4), d = random(size);
    near("activate", row_of("activate", d, [&](out to) { experts::activate<Activation>(math_, in(z), to); }),
         row_of("activate", d, [&](out to) { experts::activate<Activation>(in(z), to); }), 0.1);
    near("activate_backward",
         row_of("activate_backward", d, [&](out to) { experts::activate_backward<Activation>(math_, in(z), to); }),
         row_of("activate_backward", d, [&](out to) { experts::activate_backward<Activation>(in(z), to); }), 1);
  }

  void check_gates(std::size_t size) {
    check_gate(experts::gated<experts::silu>{}, size);
    check_gate(experts::gated<experts::gelu>{}, size);
    check_gate(experts::gpt_oss_gate{}, size);
    check_gate(experts::clamped<experts::silu>{2}, size);
  }
  template <class Gate> void check_gate(const Gate& gate, std::size_t size) {
    const values g = random(size, 4), u = random(size, 4), da = random(size);
    near("gate", row_of("gate", da, [&](out to) { experts::apply_gate(math_, gate, in(g), in(u), to); }),
         row_of("gate", da, [&](out to) { experts::apply_gate(gate, in(g), in(u), to); }), 1);
    const auto backward = [&](bool plain, bool of_gate) {
      values dg(size), du = da;
      values written = row_of("gate_backward", da, [&](out to) {
        const out other = of_gate ? out(du) : out(dg);
        const out first = of_gate ? to : other, second = of_gate ? other : to;
        plain ? experts::apply_gate_backward(gate, in(g), in(u), first, second)
              : experts::apply_gate_backward(math_, gate, in(g), in(u), first, second);
      });
      return written;
    };
    for (const bool of_gate : {true, false})
      near("gate_backward", backward(false, of_gate), backward(true, of_gate), 4);
  }

  void check_scores(std::size_t size) {
    check_score(routing::softmax{}, size);
    check_score(routing::sigmoid{}, size);
    check_score(routing::sqrt_softplus{}, size);
  }
  template <class Function> void check_score(const Function& function, std::size_t size) {
    const values z = random(size, 3), start = random(size);
    near("score", row_of("score", start, [&](out to) { routing::score_row(math_, function, in(z), to); }),
         row_of("score", start, [&](out to) { function.forward(in(z), to); }), 0.01);
  }

  void check_selections(std::size_t size) {
    values p = random(size);
    check_selection(routing::top_k<>{std::min<std::size_t>(size, 3)}, p);
    check_selection(routing::threshold{0.5}, p);
    values tied(size, T(0.25));
    check_selection(routing::top_k<>{std::min<std::size_t>(size, 5)}, tied);
    for (T& value : p)
      value = std::abs(value);
    check_selection(routing::top_p{0.6}, p);
    if (size % 8 == 0) {
      check_selection(routing::group_limited<>{4, 2, 3}, p);
      routing::biased<T, routing::group_limited<>> biased{size, {4, 2, 3}};
      for (std::size_t e = 0; e < size; ++e)
        biased.bias()[e] = static_cast<T>(e % 3) * T(0.125);
      check_selection(biased, p);
    }
  }
  template <class Selection> void check_selection(const Selection& selection, const values& p) {
    const auto chosen = [&](const auto& select) {
      std::vector<index_t> ids(p.size(), no_index);
      values scratch(routing::selection_scratch(selection, p.size()));
      ids.resize(select(vector_view<index_t>(ids), out(scratch)));
      std::sort(ids.begin(), ids.end());
      return ids;
    };
    const auto ours = chosen([&](vector_view<index_t> ids, out scratch) {
      return routing::select_row(math_, selection, in(p), ids, scratch);
    });
    const auto expected = chosen(
        [&](vector_view<index_t> ids, out scratch) { return routing::select_row(selection, in(p), ids, scratch); });
    found_.expect(ours == expected, "select chooses the experts that the plain form chooses", p.size(),
                  " experts: chose ", ours.size(), ", expected ", expected.size());
  }

  void check_adamw(std::size_t size) {
    const training::adamw_factors<T> by{T(0.999), T(0.9), T(0.99), T(0.01), T(1.5), T(1e-8)};
    const values start = random(size), gradient = random(size);
    const auto step = [&](const auto& math, std::size_t of) {
      values state[3] = {start, random_values<T>(size, 5), values(size, T(0.25))};
      return row_of("update_adamw", state[of], [&](out to) {
        T* where[3] = {state[0].data(), state[1].data(), state[2].data()};
        where[of] = to.data();
        training::update_adamw(math, by, size, where[0], gradient.data(), where[1], where[2]);
      });
    };
    for (std::size_t of = 0; of < 3; ++of)
      near("update_adamw", step(math_, of), step(backends::reference{}, of), 1);
  }

  const Backend& math_;
  const backend_options& options_;
  backend_report& found_;
  std::uint64_t stream_ = 1000;
};

} // namespace detail

/// Runs every operation of a backend (hmoe/execution/operations.hpp), for float and double, over odd shapes: it agrees
/// with the plain form, writes its output only, and a row of a product has the same bits in any batch. Tells which
/// operations the backend has: print backend_report::operations() to see that none is misspelt.
template <backend Backend>
[[nodiscard]] backend_report check_backend(const Backend& math, const backend_options& options = {}) {
  backend_report found;
  namespace names = operations::detail;
  found.note("add_scaled", names::names_add_scaled<Backend>);
  found.note("copy_scaled", names::names_copy_scaled<Backend>);
  found.note("weighted_sum", names::names_weighted_sum<Backend>);
  found.note("dot", names::names_dot<Backend>);
  found.note("activate", names::names_activate<Backend>);
  found.note("activate_backward", names::names_activate_backward<Backend>);
  found.note("gate", names::names_gate<Backend>);
  found.note("gate_backward", names::names_gate_backward<Backend>);
  found.note("score", names::names_score<Backend>);
  found.note("select", names::names_select<Backend>);
  found.note("update_adamw", names::names_update_adamw<Backend>);
  found.note("forward_bank and backward_bank", names::names_takes_bank<Backend>);
  found.note("gathers", names::names_gathers<Backend>);
  found.expect_no_throw("works without an exception", [&] {
    detail::backend_check<float, Backend>(math, options, found).run();
    detail::backend_check<double, Backend>(math, options, found).run();
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
