// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// How an expert is exercised.
struct expert_options {
  std::size_t rows = 5;          ///< batch size
  bool random_parameters = true; ///< fill a copy with random weights first; off: use the weights as they are
  double tolerance = 0;          ///< of gradients; 0 means gradient_tolerance<value_type>
};

namespace detail {

/// One expert of a bank, and what the laws ask of it.
template <expert_bank Bank> class expert_probe {
  using T = typename Bank::value_type;

public:
  expert_probe(Bank& bank, std::size_t expert, std::size_t rows, double tolerance, report& found)
      : bank_(bank), e_(expert), rows_(rows), d_(bank.d_model()), tolerance_(tolerance), found_(found),
        x_(random_values<T>(rows * d_, 1 + expert)), c_(random_values<T>(rows * d_, 1001 + expert)) {}

  void check() {
    found_.expect_no_throw(law("forward accepts its batch"), [&] { check_forward(); });
    found_.expect_no_throw(law("no rows are a legal batch"), [&] { check_no_rows(); });
    found_.expect_no_throw(law("backward accepts what forward did"), [&] { check_backward(); });
  }

private:
  [[nodiscard]] std::string law(const char* text) const { return "expert " + std::to_string(e_) + ", " + text; }

  [[nodiscard]] std::vector<T> output(const std::vector<T>& x, std::size_t rows) const {
    return output(bank_, x, rows);
  }
  [[nodiscard]] std::vector<T> output(const Bank& bank, const std::vector<T>& x, std::size_t rows) const {
    guarded_matrix<T> in(rows, d_, x), y(rows, d_), saved(rows, bank.saved_per_row(e_));
    bank.forward(math_, e_, std::as_const(in).view(), y.view(), saved.view());
    return y.values();
  }

  void check_forward() {
    guarded_matrix<T> in(rows_, d_, x_), y(rows_, d_), saved(rows_, bank_.saved_per_row(e_));
    bank_.forward(math_, e_, std::as_const(in).view(), y.view(), saved.view());
    found_.expect(in.values() == x_, law("forward leaves its input alone"), "x is different afterwards");
    found_.expect(y.margins_intact() && in.margins_intact(), law("forward writes y only within its shape"),
                  "values beside the [", rows_, " x ", d_, "] output changed; rows may be further apart than d_model");
    found_.expect(saved.margins_intact(), law("forward saves only saved_per_row values of each row"),
                  "values beside the [", rows_, " x ", bank_.saved_per_row(e_), "] memory changed");
    if (!found_.expect(all_finite(y.values()), law("forward writes every value of y"),
                       "y was NaN before, and still has values that are not finite"))
      return;
    found_.expect(repeatable([&] { return output(x_, rows_); }), law("forward returns the same bits every time"),
                  "a second call, or a call from another thread, gave others");
    for (std::size_t r = 0; r < rows_; ++r) {
      const auto first = static_cast<std::ptrdiff_t>(r * d_), last = static_cast<std::ptrdiff_t>((r + 1) * d_);
      const std::vector<T> alone = output({x_.begin() + first, x_.begin() + last}, 1), together = y.values();
      const std::vector<T> row(together.begin() + first, together.begin() + last);
      found_.expect(relative_error(alone, row) <= rounding_tolerance<T>, law("a row does not depend on the others"),
                    "row ", r, " alone gives another result than in a batch of ", rows_);
    }
  }

  void check_no_rows() {
    found_.expect(output({}, 0).empty(), law("no rows are a legal batch"), "there is output");
    Bank gradients = zeros();
    run_backward({}, 0, {}, gradients);
  }

  void check_backward() {
    Bank gradients = zeros();
    const std::vector<T> dx = run_backward(x_, rows_, c_, gradients);
    const auto loss = [&] { return inner_product(output(x_, rows_), c_); };
    compare(dx, finite_differences(vector_view<T>(x_), loss), "backward's dx is the derivative by x", "dx", d_);

    auto values = tensors(bank_), slopes = tensors(gradients);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto& [info, view] = slopes[i];
      const std::vector<T> slope(view.data(), view.data() + view.size());
      if (info.expert != e_) {
        found_.expect(std::all_of(slope.begin(), slope.end(), [](T g) { return g == T(0); }),
                      law("backward adds only to its own expert's gradients"), "it changed ", info.full_name());
        continue;
      }
      if (!info.trained) {
        found_.expect(std::all_of(slope.begin(), slope.end(), [](T g) { return g == T(0); }),
                      law("what is not trained has no gradient"), info.full_name(), " has one");
        continue;
      }
      vector_view<T> at(values[i].second.data(), values[i].second.size());
      compare(slope, finite_differences(at, loss), "backward's gradients are the derivatives by the parameters",
              info.full_name(), view.cols());
    }
    check_visited(gradients, "a copy that was used as gradients");

    Bank initialized = bank_;
    initialized.initialize(seed{8}, 40, {});
    check_visited(initialized, "a copy that was initialised with another seed");

    Bank twice = gradients;
    run_backward(x_, rows_, c_, twice);
    auto doubled = tensors(twice);
    for (std::size_t i = 0; i < slopes.size(); ++i) {
      std::vector<T> expected(slopes[i].second.data(), slopes[i].second.data() + slopes[i].second.size());
      for (T& value : expected)
        value *= 2;
      const std::vector<T> got(doubled[i].second.data(), doubled[i].second.data() + doubled[i].second.size());
      found_.expect(relative_error(expected, got) <= rounding_tolerance<T>, law("gradients are added, not overwritten"),
                    "a second backward pass did not double the gradient of ", slopes[i].first.full_name());
    }
  }

  std::vector<T> run_backward(const std::vector<T>& x, std::size_t rows, const std::vector<T>& dy, Bank& gradients) {
    guarded_matrix<T> in(rows, d_, x), y(rows, d_), saved(rows, bank_.saved_per_row(e_)), d_out(rows, d_, dy),
        dx(rows, d_), scratch(rows, bank_.scratch_per_row(e_));
    bank_.forward(math_, e_, std::as_const(in).view(), y.view(), saved.view());
    const std::vector<T> before = saved.values();
    bank_.backward(math_, e_, std::as_const(in).view(), std::as_const(saved).view(), std::as_const(d_out).view(),
                   dx.view(), scratch.view(), gradients);
    found_.expect(in.values() == x && d_out.values() == dy && same_bits(saved.values(), before),
                  law("backward leaves its inputs alone"), "x, dy or the saved values are different afterwards");
    found_.expect(dx.margins_intact() && scratch.margins_intact(), law("backward writes only within its shapes"),
                  "values beside dx [", rows, " x ", d_, "] or the scratch [", rows, " x ", bank_.scratch_per_row(e_),
                  "] changed");
    return dx.values();
  }

  void compare(const std::vector<T>& analytic, const std::vector<double>& numeric, const char* text,
               const std::string& name, std::size_t cols) {
    const double error = relative_error(analytic, numeric);
    if (!(error <= tolerance_))
      found_.expect(false, law(text), name, " differs from finite differences ",
                    largest_difference(analytic, numeric, cols), ", which is ", error,
                    " of its largest value, allowed are ", tolerance_);
  }

  /// `other` with the bank's visited tensors must do what the bank does.
  void check_visited(Bank other, const char* origin) {
    auto from = tensors(bank_), to = tensors(other);
    for (std::size_t i = 0; i < from.size(); ++i)
      std::copy_n(from[i].second.data(), from[i].second.size(), to[i].second.data());
    const std::vector<T> expected = output(x_, rows_), got = output(other, x_, rows_);
    if (!same_bits(got, expected))
      found_.expect(false, law("visit_parameters visits every parameter"), origin,
                    " has the same visited tensors and another output, ", largest_difference(got, expected, d_));
  }

  [[nodiscard]] Bank zeros() const {
    Bank gradients = bank_;
    set_zero(gradients);
    return gradients;
  }
  static std::vector<std::pair<parameter_info, matrix_view<T>>> tensors(Bank& bank) {
    std::vector<std::pair<parameter_info, matrix_view<T>>> list;
    bank.visit_parameters([&](const parameter_info& info, matrix_view<T> view) { list.emplace_back(info, view); });
    return list;
  }

  backends::reference math_;
  Bank& bank_;
  std::size_t e_, rows_, d_;
  double tolerance_;
  report& found_;
  std::vector<T> x_, c_;
};

} // namespace detail

/// Checks a bank of experts: that forward and backward write what they should and nothing else, rows are independent,
/// results repeat on any thread, parameters are visited as they are counted, copies are independent, initialisation
/// is a function of the seed, and every gradient agrees with central differences (that of a tensor which is not trained
/// stays 0). Cost: two forward passes per parameter, so take small widths. Activations with a kink (relu) are checked
/// beside it, not at it.
template <expert_bank Bank> [[nodiscard]] report check_expert(const Bank& subject, const expert_options& options = {}) {
  using T = typename Bank::value_type;
  report found;
  const double tolerance = options.tolerance > 0 ? options.tolerance : gradient_tolerance<T>;
  found.expect_no_throw("the parts that need no data work", [&] {
    Bank bank = subject;
    if (!found.expect(bank.size() >= 1 && bank.d_model() >= 1, "a bank has experts and a token size", "size() is ",
                      bank.size(), ", d_model() is ", bank.d_model()))
      return;

    std::vector<std::size_t> counted(bank.size());
    std::vector<std::string> names;
    std::uint64_t stream = 5000;
    bank.visit_parameters([&](const parameter_info& info, matrix_view<T> view) {
      found.expect(view.contiguous(), "visited tensors are contiguous", info.full_name(), " has stride ", view.stride(),
                   " for ", view.cols(), " columns");
      if (found.expect(info.expert < bank.size(), "a visited tensor names its expert", info.full_name(),
                       " is said to belong to no expert of the ", bank.size()))
        counted[info.expert] += view.size();
      names.push_back(info.full_name());
      if (options.random_parameters)
        fill_normal(vector_view<T>(view.data(), view.size()), 1 / std::sqrt(static_cast<double>(view.cols())),
                    seed{0x686d6f65}, stream++);
    });
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    found.expect(twin == names.end(), "tensors have names of their own", "two are called ",
                 twin == names.end() ? "" : *twin);
    for (std::size_t e = 0; e < bank.size(); ++e) {
      found.expect(bank.parameter_count(e) == counted[e], "parameter_count agrees with visit_parameters", "expert ", e,
                   " has ", bank.parameter_count(e), " parameters, and tensors with ", counted[e], " values");
      const double flops = bank.flops_per_row(e);
      found.expect(std::isfinite(flops) && flops >= 0, "flops_per_row is a number of operations", "expert ", e,
                   " reports ", flops);
    }

    const auto bits = [](Bank& b) {
      std::vector<T> all;
      b.visit_parameters(
          [&](const parameter_info&, matrix_view<T> v) { all.insert(all.end(), v.data(), v.data() + v.size()); });
      return all;
    };
    Bank first = bank, second = bank;
    const std::vector<T> before = bits(bank);
    first.initialize(seed{7}, 3, {});
    second.initialize(seed{7}, 3, {});
    found.expect(same_bits(bits(bank), before), "copies are independent", "initialising a copy changed the original");
    found.expect(same_bits(bits(first), bits(second)) && all_finite(bits(first)),
                 "initialize is a function of the seed", "two calls with seed 7 gave different or non-finite weights");

    for (std::size_t e = 0; e < bank.size(); ++e)
      detail::expert_probe<Bank>(bank, e, options.rows, tolerance, found).check();
  });
  return found;
}

/// The same for a single expert.
template <expert E>
  requires(!expert_bank<E>)
[[nodiscard]] report check_expert(const E& subject, const expert_options& options = {}) {
  return check_expert(experts::bank_of<E>(subject), options);
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
