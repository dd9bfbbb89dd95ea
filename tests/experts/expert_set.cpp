// SPDX-License-Identifier: MIT
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "experts/bank_checks.hpp"
#include "experts/diagonal_expert.hpp"

#include <doctest/doctest.h>

#include <concepts>
#include <string>
#include <vector>

namespace experts = hmoe::experts;
using bank_checks::diagonal_expert;
using hmoe::expert_set;
using hmoe::matrix;

namespace {

template <class T> using glu = experts::glu_bank<T, experts::silu>;
template <class T> using mlp = experts::mlp_bank<T, experts::gelu>;

// Keeps a tensor that no gradient moves.
struct with_state : diagonal_expert<double> {
  matrix<double> seen{1, 4};
  with_state() : diagonal_expert(4) {}
  void backward(hmoe::matrix_view<const double> x, hmoe::matrix_view<const double> dy, hmoe::matrix_view<double> dx,
                with_state& gradients) const {
    diagonal_expert::backward(x, dy, dx, gradients);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    diagonal_expert::visit_parameters(visit);
    visit(hmoe::parameter_info{.name = "seen", .decay = false, .trained = false}, seen.view());
  }
};

// Experts 0 1 2: GLU of widths 3 1 5; 3: the user's own; 4 5: MLP of widths 4 2.
auto mixed_set() {
  return expert_set{glu<double>(4, {3, 1, 5}), diagonal_expert<double>(4),
                    mlp<double>(4, {4, 2}, experts::biases::all)};
}

} // namespace

TEST_CASE("experts of all banks are numbered through, single experts count as a bank") {
  static_assert(std::same_as<decltype(mixed_set()),
                             expert_set<glu<double>, experts::bank_of<diagonal_expert<double>>, mlp<double>>>);
  static_assert(hmoe::expert_bank<decltype(mixed_set())>); // a set is a bank itself
  auto set = mixed_set();
  CHECK(set.size() == 6);
  CHECK(set.d_model() == 4);
  const std::size_t widths[] = {3, 1, 5, 0, 4, 2}, saved[] = {9, 3, 15, 0, 8, 4}, scratch[] = {6, 2, 10, 0, 4, 2};
  const std::size_t parameters[] = {36, 12, 60, 8, 2 * 16 + 8, 2 * 8 + 6};
  const double flops[] = {72, 24, 120, 16, 64, 32};
  for (std::size_t e = 0; e < 6; ++e) {
    CAPTURE(e);
    CHECK(set.width(e) == widths[e]);
    CHECK(set.saved_per_row(e) == saved[e]);
    CHECK(set.scratch_per_row(e) == scratch[e]);
    CHECK(set.parameter_count(e) == parameters[e]);
    CHECK(set.flops_per_row(e) == flops[e]);
  }
  CHECK(set.bank<0>().size() == 3);
  CHECK(set.bank<2>().width(1) == 2);

  std::vector<std::string> names;
  set.visit_parameters([&](const hmoe::parameter_info& info, auto) { names.push_back(info.full_name()); });
  CHECK(names == std::vector<std::string>{"experts.0.gate", "experts.0.up", "experts.0.down", "experts.1.gate",
                                          "experts.1.up", "experts.1.down", "experts.2.gate", "experts.2.up",
                                          "experts.2.down", "experts.3.scale", "experts.3.shift", "experts.4.up",
                                          "experts.4.down", "experts.4.up_bias", "experts.4.down_bias", "experts.5.up",
                                          "experts.5.down", "experts.5.up_bias", "experts.5.down_bias"});
}

TEST_CASE("what an expert says of a tensor comes through bank and set") {
  expert_set set{glu<double>(4, {3}), with_state{}};
  std::vector<std::string> untrained;
  set.visit_parameters([&](const hmoe::parameter_info& info, auto) {
    if (!info.trained)
      untrained.push_back(info.full_name());
  });
  CHECK(untrained == std::vector<std::string>{"experts.1.seen"});
}

TEST_CASE("each expert computes as it does in its bank") {
  support::random_source random(91);
  auto set = mixed_set();
  bank_checks::randomize(set, random);
  const auto x = support::random_matrix<double>(random, 3, 4);
  const auto same = [&](std::size_t e, const matrix<double>& expected) {
    return support::largest_difference(bank_checks::forward(set, e, x).view(), expected.view()) == 0;
  };
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(same(i, bank_checks::forward(set.bank<0>(), i, x)));
  CHECK(same(3, bank_checks::forward(set.bank<1>(), 0, x)));
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(same(4 + i, bank_checks::forward(set.bank<2>(), i, x)));
}

TEST_CASE("gradients land at their expert, right to 1e-6 and nowhere else") {
  support::random_source random(92);
  for (std::size_t e = 0; e < 6; ++e)
    for (const std::size_t rows : {0U, 1U, 4U}) {
      CAPTURE(e);
      CHECK(bank_checks::gradient_error(mixed_set(), e, rows, random) < 1e-6);
    }
}

TEST_CASE("permuting the experts permutes the results, bit for bit") {
  support::random_source random(93);
  const std::vector<std::size_t> widths{3, 1, 6, 2}, order{2, 0, 3, 1};
  std::vector<std::size_t> permuted_widths;
  for (const std::size_t e : order)
    permuted_widths.push_back(widths[e]);
  glu<float> bank(5, widths, experts::biases::all), permuted(5, permuted_widths, experts::biases::all);
  bank_checks::randomize(bank, random);
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::vector<std::vector<float>> source;
    bank.visit_parameters([&](const hmoe::parameter_info& info, auto view) {
      if (info.expert == order[i])
        source.emplace_back(view.data(), view.data() + view.size());
    });
    std::size_t next = 0;
    permuted.visit_parameters([&](const hmoe::parameter_info& info, auto view) {
      if (info.expert == i) {
        REQUIRE(source[next].size() == view.size());
        std::ranges::copy(source[next++], view.data());
      }
    });
  }
  const auto x = support::random_matrix<float>(random, 4, 5);
  for (std::size_t i = 0; i < order.size(); ++i)
    CHECK(support::largest_difference(bank_checks::forward(permuted, i, x).view(),
                                      bank_checks::forward(bank, order[i], x).view()) == 0);
}

TEST_CASE("fresh weights do not depend on how experts are grouped into banks") {
  const hmoe::initialization options;
  expert_set together{glu<float>(6, {3, 1, 5})};
  expert_set apart{glu<float>(6, {3}), glu<float>(6, {1, 5})};
  together.initialize(hmoe::seed{7}, 100, options);
  apart.initialize(hmoe::seed{7}, 100, options);
  const auto values = [](auto& set) {
    std::vector<float> result;
    set.visit_parameters([&](const hmoe::parameter_info&, auto view) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        result.insert(result.end(), view.row(r).begin(), view.row(r).end());
    });
    return result;
  };
  CHECK(values(together) == values(apart));
}

TEST_CASE("a set is a value: copies are deep, and a set of one set is that set") {
  auto set = mixed_set();
  expert_set copy{set};
  static_assert(std::same_as<decltype(copy), decltype(set)>);
  set.bank<0>().gate(0)(0, 0) = 5;
  CHECK(copy.bank<0>().gate(0)(0, 0) == 0);
}

TEST_CASE("banks of different d_model are refused with both numbers") {
  CHECK_THROWS_WITH_AS((expert_set{glu<float>(4, {1}), glu<float>(4, {2}), mlp<float>(5, {1})}),
                       "hmoe: bank 2 has d_model 5, the first bank 4", hmoe::error);
}

TEST_CASE("experts are numbered as the caller says") {
  const auto in_order = mixed_set(); // GLU 3 1 5, the user's own, MLP 4 2
  const hmoe::expert_ids ids{{{0, 2, 5}, {1}, {3, 4}}};
  expert_set set{ids, in_order.bank<0>(), in_order.bank<1>(), in_order.bank<2>()};
  static_assert(std::same_as<decltype(set), decltype(mixed_set())>);
  CHECK(!set.numbered_in_order());
  CHECK(in_order.numbered_in_order());
  const std::size_t place[] = {0, 3, 1, 4, 5, 2}; // where the expert of an id stands bank after bank
  for (std::size_t e = 0; e < 6; ++e) {
    CAPTURE(e);
    CHECK(set.width(e) == in_order.width(place[e]));
    CHECK(set.parameter_count(e) == in_order.parameter_count(place[e]));
    CHECK(set.flops_per_row(e) == in_order.flops_per_row(place[e]));
  }
  std::vector<std::size_t> seen;
  set.visit_parameters([&](const hmoe::parameter_info& info, auto) {
    if (seen.empty() || seen.back() != info.expert)
      seen.push_back(info.expert);
  });
  CHECK(seen == std::vector<std::size_t>{0, 2, 5, 1, 3, 4});
}

TEST_CASE("ids that leave a number out, name one twice or do not ascend within a bank are refused") {
  const auto make = [](hmoe::expert_ids ids) {
    return expert_set{std::move(ids), glu<double>(4, {3, 1}), mlp<double>(4, {4})};
  };
  CHECK_NOTHROW(make({{{0, 2}, {1}}}));
  CHECK_THROWS_WITH_AS(make({{{0, 2}, {3}}}), "hmoe: bank 1 has an expert of id 3, possible are 0 to 2", hmoe::error);
  CHECK_THROWS_WITH_AS(make({{{0, 1}, {1}}}), "hmoe: expert 1 is in bank 0 and in bank 1", hmoe::error);
  CHECK_THROWS_WITH_AS(make({{{2, 0}, {1}}}), "hmoe: the ids of bank 0 do not ascend: 2 before 0", hmoe::error);
  CHECK_THROWS_WITH_AS(make({{{0}, {1}}}), "hmoe: bank 0 has 2 experts and 1 ids", hmoe::error);
  CHECK_THROWS_WITH_AS(make({{{0, 1, 2}}}), "hmoe: expert_ids for 1 banks, given are 2", hmoe::error);
}
