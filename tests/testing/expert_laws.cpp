// SPDX-License-Identifier: MIT
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/testing/expert_laws.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::testing::check_expert;
namespace experts = hmoe::experts;

namespace {
enum class fault {
  none,
  forgets_a_value,
  writes_past_a_row,
  changes_x,
  mixes_rows,
  counts_calls,
  wrong_dx,
  wrong_gradient,
  overwrites,
  adds_to_dx,
  changes_dy,
  hides_a_tensor,
  throws,
  wrong_count,
  same_name
};

/// y_i = a_i · x_i² + b_i, with one thing wrong.
template <fault Fault> struct square {
  using value_type = double;
  matrix<double> a{1, 4}, b{1, 4};
  int* calls = &counter;
  static inline int counter = 0;

  static std::size_t d_model() { return 4; }
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    if (Fault == fault::throws)
      throw std::runtime_error("out of order");
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i)
        if (Fault != fault::forgets_a_value || i != 2)
          y(r, i) = a(0, i) * x(r, i) * x(r, i) + b(0, i) + (Fault == fault::mixes_rows ? x(0, i) : 0);
    if (x.rows() == 0)
      return;
    if (Fault == fault::writes_past_a_row)
      y.row(0).data()[4] = 1;
    if (Fault == fault::changes_x)
      const_cast<double&>(x(0, 0)) = 1;
    if (Fault == fault::counts_calls)
      y(0, 0) += ++*calls;
  }
  void backward(matrix_view<const double> x, matrix_view<const double> dy, matrix_view<double> dx, square& g) const {
    if (Fault == fault::overwrites)
      hmoe::set_zero(g);
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i) {
        const double slope = dy(r, i) * a(0, i) * x(r, i) * (Fault == fault::wrong_dx ? 1 : 2);
        if (Fault == fault::adds_to_dx)
          dx(r, i) += slope;
        else
          dx(r, i) = slope;
        g.a(0, i) += dy(r, i) * x(r, i) * (Fault == fault::wrong_gradient && i == 3 ? -x(r, i) : x(r, i));
        g.b(0, i) += dy(r, i);
      }
    if (Fault == fault::changes_dy && x.rows() != 0)
      const_cast<double&>(dy(0, 0)) = 1;
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"a"}, a.view());
    if (Fault != fault::hides_a_tensor)
      visit(hmoe::parameter_info{Fault == fault::same_name ? "a" : "b", false}, b.view());
  }
};

template <fault Fault> std::string laws() { return check_expert(square<Fault>{}).text(); }

/// A bank that is right but for its bookkeeping.
template <fault Fault> struct faulty_bank : experts::mlp_bank<double, experts::silu> {
  using base = experts::mlp_bank<double, experts::silu>;
  faulty_bank() : base(3, {2, 4}) {}
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const {
    return base::parameter_count(e) + (Fault == fault::wrong_count ? 1 : 0);
  }
  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const double> x, matrix_view<const double> saved,
                matrix_view<const double> dy, matrix_view<double> dx, matrix_view<double> scratch,
                faulty_bank& gradients) const {
    base::backward(math, e, x, saved, dy, dx, scratch, gradients);
    if (Fault == fault::wrong_gradient)
      gradients.down(1 - e)(0, 0) += 1;
    if (Fault == fault::changes_x && x.rows() != 0)
      scratch.row(0).data()[scratch.cols()] = 0;
  }
};
} // namespace

TEST_CASE("shipped experts keep the laws") {
  CHECK(check_expert(experts::glu_bank<double, experts::silu>(4, {1, 3}, experts::biases::all)).text() == "");
  CHECK(check_expert(experts::mlp_bank<double, experts::relu>(5, {2, 1})).text() == "");
  CHECK(check_expert(experts::glu_bank<float, experts::gelu>(4, {2}, experts::biases::all)).text() == "");
  CHECK(laws<fault::none>() == "");
  CHECK(check_expert(faulty_bank<fault::none>{}).text() == "");
}

TEST_CASE("each fault is named") {
  const auto names = [](const std::string& text, const char* law) { return text.find(law) != std::string::npos; };
  CHECK(names(laws<fault::forgets_a_value>(), "forward writes every value of y"));
  CHECK(names(laws<fault::writes_past_a_row>(), "forward writes y only within its shape"));
  CHECK(names(laws<fault::changes_x>(), "forward leaves its input alone"));
  CHECK(names(laws<fault::mixes_rows>(), "a row does not depend on the others: row 1 alone"));
  CHECK(names(laws<fault::counts_calls>(), "forward returns the same bits every time"));
  CHECK(names(laws<fault::wrong_dx>(), "backward's dx is the derivative by x: dx differs from finite differences"));
  CHECK(names(laws<fault::wrong_gradient>(), "the derivatives by the parameters: experts.0.a differs"));
  CHECK(names(laws<fault::overwrites>(), "gradients are added, not overwritten"));
  CHECK(names(laws<fault::adds_to_dx>(), "backward's dx is the derivative by x"));
  CHECK(names(laws<fault::changes_dy>(), "backward leaves its inputs alone"));
  CHECK(names(laws<fault::throws>(), "an exception was thrown: out of order"));
  CHECK(names(laws<fault::same_name>(), "tensors have names of their own: two are called experts.0.a"));
  CHECK(names(check_expert(faulty_bank<fault::wrong_count>{}).text(), "parameter_count agrees with visit_parameters"));
  CHECK(names(check_expert(faulty_bank<fault::wrong_gradient>{}).text(), "adds only to its own expert's gradients"));
  CHECK(names(check_expert(faulty_bank<fault::changes_x>{}).text(), "backward writes only within its shapes"));
}
