// SPDX-License-Identifier: MIT
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/testing/expert_laws.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
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
  no_rows,
  no_way_back,
  starts_anywhere,
  throws,
  wrong_count,
  forgets_to_visit,
  same_name,
  empty,
  strided,
  nameless,
  no_cost,
  saves_too_much
};

/// y_i = a_i · x_i² + b_i, with one thing wrong: which one is a value, so that the laws are compiled once.
struct square {
  using value_type = double;
  fault has = fault::none;
  matrix<double> a{1, 4}, b{1, 4};
  int* calls = &counter;
  static inline int counter = 0;

  static std::size_t d_model() { return 4; }
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    if (has == fault::throws)
      throw std::runtime_error("out of order");
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i)
        if (has != fault::forgets_a_value || i != 2)
          y(r, i) = a(0, i) * x(r, i) * x(r, i) + b(0, i) + (has == fault::mixes_rows ? x(0, i) : 0);
    if (has == fault::no_rows && x.rows() == 0)
      throw std::runtime_error("nothing to do");
    if (x.rows() == 0)
      return;
    if (has == fault::writes_past_a_row)
      y.row(0).data()[4] = 1;
    if (has == fault::changes_x)
      const_cast<double&>(x(0, 0)) = 1;
    if (has == fault::counts_calls)
      y(0, 0) += ++*calls;
  }
  void backward(matrix_view<const double> x, matrix_view<const double> dy, matrix_view<double> dx, square& g) const {
    if (has == fault::no_way_back)
      throw std::runtime_error("one way only");
    if (has == fault::overwrites)
      hmoe::set_zero(g);
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i) {
        const double slope = dy(r, i) * a(0, i) * x(r, i) * (has == fault::wrong_dx ? 1 : 2);
        if (has == fault::adds_to_dx)
          dx(r, i) += slope;
        else
          dx(r, i) = slope;
        g.a(0, i) += dy(r, i) * x(r, i) * (has == fault::wrong_gradient && i == 3 ? -x(r, i) : x(r, i));
        g.b(0, i) += dy(r, i);
      }
    if (has == fault::changes_dy && x.rows() != 0)
      const_cast<double&>(dy(0, 0)) = 1;
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"a"}, a.view());
    if (has != fault::forgets_to_visit)
      visit(hmoe::parameter_info{has == fault::same_name ? "a" : "b", false}, b.view());
  }
  void initialize(hmoe::seed key, std::uint64_t stream, const hmoe::initialization&) {
    hmoe::fill_normal(a.row(0), 1, key, stream);
    b.set_zero();
    if (has == fault::starts_anywhere)
      b(0, 0) = ++*calls;
  }
};

/// y_i = a_i · s_i · x_i with a state s that no gradient moves; with a fault it gets one.
struct scaled {
  using value_type = double;
  fault has = fault::none;
  matrix<double> a{1, 3}, s{1, 3};

  static std::size_t d_model() { return 3; }
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 3; ++i)
        y(r, i) = a(0, i) * s(0, i) * x(r, i);
  }
  void backward(matrix_view<const double> x, matrix_view<const double> dy, matrix_view<double> dx, scaled& g) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 3; ++i) {
        dx(r, i) = dy(r, i) * a(0, i) * s(0, i);
        g.a(0, i) += dy(r, i) * x(r, i) * s(0, i);
        if (has == fault::wrong_gradient)
          g.s(0, i) += dy(r, i) * x(r, i) * a(0, i);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"a"}, a.view());
    visit(hmoe::parameter_info{.name = "s", .decay = false, .trained = false}, s.view());
  }
};

/// y = a x, whose copies share their a.
struct shared_memory {
  using value_type = double;
  std::shared_ptr<matrix<double>> a = std::make_shared<matrix<double>>(1, 1);

  static std::size_t d_model() { return 1; }
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      y(r, 0) = (*a)(0, 0) * x(r, 0);
  }
  void backward(matrix_view<const double> x, matrix_view<const double> dy, matrix_view<double> dx,
                shared_memory& g) const {
    for (std::size_t r = 0; r < x.rows(); ++r) {
      dx(r, 0) = (*a)(0, 0) * dy(r, 0);
      (*g.a)(0, 0) += dy(r, 0) * x(r, 0);
    }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(hmoe::parameter_info{"a"}, a->view()); }
};

std::string laws(fault has) {
  square expert;
  expert.has = has;
  return check_expert(expert).text();
}

/// y_i = a_i x_i without a gradient of a, which only initialize writes and nobody visits.
struct hides_its_weights : square {
  void forward(matrix_view<const double> x, matrix_view<double> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i)
        y(r, i) = a(0, i) * x(r, i);
  }
  void backward(matrix_view<const double>, matrix_view<const double> dy, matrix_view<double> dx,
                hides_its_weights&) const {
    for (std::size_t r = 0; r < dy.rows(); ++r)
      for (std::size_t i = 0; i < 4; ++i)
        dx(r, i) = a(0, i) * dy(r, i);
  }
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

/// A bank that is right but for its bookkeeping.
struct faulty_bank : experts::mlp_bank<double, experts::silu> {
  using base = experts::mlp_bank<double, experts::silu>;
  fault has;

  explicit faulty_bank(fault f) : base(3, {2, 4}), has(f) {}
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const {
    return base::parameter_count(e) + (has == fault::wrong_count ? 1 : 0);
  }
  [[nodiscard]] std::size_t size() const { return has == fault::empty ? 0 : base::size(); }
  [[nodiscard]] double flops_per_row(std::size_t e) const {
    return has == fault::no_cost ? std::nan("") : base::flops_per_row(e);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    base::visit_parameters([&](hmoe::parameter_info info, matrix_view<double> view) {
      if (has == fault::nameless)
        info.expert = hmoe::parameter_info::no_expert;
      visit(info, has == fault::strided ? view.column_block(0, 1) : view);
    });
  }
  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const double> x, matrix_view<double> y,
               matrix_view<double> saved) const {
    base::forward(math, e, x, y, saved);
    if (has == fault::saves_too_much && x.rows() != 0)
      saved.row(0).data()[saved.cols()] = 0;
  }
  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const double> x, matrix_view<const double> saved,
                matrix_view<const double> dy, matrix_view<double> dx, matrix_view<double> scratch,
                faulty_bank& gradients) const {
    base::backward(math, e, x, saved, dy, dx, scratch, gradients);
    if (has == fault::wrong_gradient)
      gradients.down(1 - e)(0, 0) += 1;
    if (has == fault::changes_x && x.rows() != 0)
      scratch.row(0).data()[scratch.cols()] = 0;
  }
};
} // namespace

TEST_CASE("shipped experts keep the laws") {
  CHECK(check_expert(experts::glu_bank<double, experts::silu>(4, {1, 3}, experts::biases::all)).text() == "");
  CHECK(check_expert(experts::mlp_bank<double, experts::relu>(5, {2, 1})).text() == "");
  CHECK(check_expert(experts::glu_bank<float, experts::gelu>(4, {2}, experts::biases::all)).text() == "");
  CHECK(laws(fault::none) == "");
  CHECK(check_expert(faulty_bank(fault::none)).text() == "");
  CHECK(check_expert(scaled{}).text() == "");
}

TEST_CASE("each fault is named") {
  const auto names = [](const std::string& text, const char* law) { return text.find(law) != std::string::npos; };
  CHECK(names(laws(fault::forgets_a_value), "forward writes every value of y"));
  CHECK(names(laws(fault::writes_past_a_row), "forward writes y only within its shape"));
  CHECK(names(laws(fault::changes_x), "forward leaves its input alone"));
  CHECK(names(laws(fault::mixes_rows), "a row does not depend on the others: row 1 alone"));
  CHECK(names(laws(fault::counts_calls), "forward returns the same bits every time"));
  CHECK(names(laws(fault::wrong_dx), "backward's dx is the derivative by x: dx differs from finite differences at ["));
  CHECK(names(laws(fault::wrong_gradient), "experts.0.a differs from finite differences at [0, 3]: got "));
  CHECK(names(laws(fault::wrong_gradient), "the derivatives by the parameters: experts.0.a differs"));
  CHECK(names(check_expert(scaled{.has = fault::wrong_gradient}).text(),
              "expert 0, what is not trained has no gradient: experts.0.s has one"));
  CHECK(names(laws(fault::overwrites), "gradients are added, not overwritten"));
  CHECK(names(laws(fault::adds_to_dx), "backward's dx is the derivative by x"));
  CHECK(names(laws(fault::changes_dy), "backward leaves its inputs alone"));
  CHECK(names(laws(fault::throws), "forward accepts its batch: an exception was thrown: out of order"));
  CHECK(names(laws(fault::no_rows), "no rows are a legal batch: an exception was thrown: nothing to do"));
  CHECK(names(laws(fault::no_way_back), "backward accepts what forward did: an exception was thrown: one way only"));
  CHECK(names(laws(fault::starts_anywhere), "initialize is a function of the seed"));
  CHECK(
      names(check_expert(shared_memory{}).text(), "copies are independent: initialising a copy changed the original"));
  CHECK(names(laws(fault::forgets_to_visit),
              "visit_parameters visits every parameter: a copy that was used as gradients has the same visited tensors "
              "and another output, at ["));
  CHECK(names(check_expert(hides_its_weights{}).text(),
              "visit_parameters visits every parameter: a copy that was initialised with another seed"));
  CHECK(names(laws(fault::same_name), "tensors have names of their own: two are called experts.0.a"));
  CHECK(names(check_expert(faulty_bank(fault::wrong_count)).text(), "parameter_count agrees with visit_parameters"));
  CHECK(names(check_expert(faulty_bank(fault::empty)).text(), "a bank has experts and a token size: size() is 0"));
  CHECK(names(check_expert(faulty_bank(fault::strided)).text(), "visited tensors are contiguous: experts.0.up has"));
  CHECK(names(check_expert(faulty_bank(fault::nameless)).text(), "a visited tensor names its expert: up is said"));
  CHECK(names(check_expert(faulty_bank(fault::no_cost)).text(), "flops_per_row is a number of operations: expert 0"));
  CHECK(names(check_expert(faulty_bank(fault::saves_too_much)).text(), "saves only saved_per_row values"));
  CHECK(names(check_expert(faulty_bank(fault::wrong_gradient)).text(), "adds only to its own expert's gradients"));
  CHECK(names(check_expert(faulty_bank(fault::changes_x)).text(), "backward writes only within its shapes"));
}
