// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::parameter_info;

namespace {

struct module {
  std::vector<matrix<float>> experts;
  matrix<float> router{2, 2};

  explicit module(const std::vector<std::pair<std::size_t, std::size_t>>& shapes) {
    for (const auto& [rows, cols] : shapes)
      experts.emplace_back(rows, cols);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    for (std::size_t e = 0; e < experts.size(); ++e)
      visit(parameter_info{"gate", true, e}, experts[e].view());
    visit(parameter_info{"scale", false}, router.view());
  }
};

struct left_columns {
  matrix<float> all{2, 3};
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"left"}, all.view().column_block(0, 2));
  }
};

} // namespace

TEST_CASE("names of tensors") {
  CHECK(parameter_info{"gate", true, 3}.full_name() == "experts.3.gate");
  CHECK(parameter_info{"gate", true, 0}.full_name() == "experts.0.gate");
  CHECK(parameter_info{"router"}.full_name() == "router");
  CHECK(parameter_info{"router"}.decay);
}

TEST_CASE("a list pairs every tensor with its gradient, in order, behind what was there") {
  module values({{1, 3}, {2, 2}}), gradients({{1, 3}, {2, 2}}), more({{1, 1}}), more_gradients({{1, 1}});
  std::vector<hmoe::parameter<float>> list;
  hmoe::append_parameters<float>(values, gradients, "layers.0.", list);
  hmoe::append_parameters<float>(more, more_gradients, "layers.1.", list);
  REQUIRE(list.size() == 5);
  CHECK(list[0].name == "layers.0.experts.0.gate");
  CHECK(list[1].name == "layers.0.experts.1.gate");
  CHECK(list[2].name == "layers.0.scale");
  CHECK(list[3].name == "layers.1.experts.0.gate");
  CHECK(list[4].name == "layers.1.scale");
  CHECK(list[0].decay);
  CHECK(!list[2].decay);
  CHECK(list[1].value.data() == values.experts[1].data());
  CHECK(list[1].gradient.data() == gradients.experts[1].data());
  CHECK(list[1].gradient.size() == 4);
  CHECK(list[4].gradient.data() == more_gradients.router.data());
}

TEST_CASE("gradients of another shape are refused with names and numbers, and the list stays as it was") {
  module values({{1, 3}, {2, 2}}), wider({{1, 3}, {2, 3}}), fewer({{1, 3}}), more({{1, 3}, {2, 2}, {2, 2}});
  std::vector<hmoe::parameter<float>> list;
  CHECK_THROWS_WITH_AS(hmoe::append_parameters<float>(values, wider, "", list),
                       "hmoe: the gradient of experts.1.gate is 2 x 3, which does not match the parameters: "
                       "was it made by this layer?",
                       hmoe::error);
  CHECK(list.empty());
  // Four values at the place of four others, so only the number of tensors tells.
  CHECK_THROWS_WITH_AS(hmoe::append_parameters<float>(more, values, "", list),
                       "hmoe: the gradients have 3 tensors, the parameters 4", hmoe::error);
  CHECK_THROWS_AS(hmoe::append_parameters<float>(values, more, "", list), hmoe::error);
  CHECK_THROWS_AS(hmoe::append_parameters<float>(values, fewer, "", list), hmoe::error);
  CHECK(list.empty());
}

TEST_CASE("set_zero clears every tensor, and of strided ones only the viewed part") {
  module values({{2, 2}});
  values.experts[0](1, 1) = 3;
  values.router(0, 0) = 2;
  hmoe::set_zero(values);
  CHECK(values.experts[0](1, 1) == 0);
  CHECK(values.router(0, 0) == 0);

  left_columns strided;
  for (std::size_t i = 0; i < 6; ++i)
    strided.all.data()[i] = 1;
  hmoe::set_zero(strided);
  CHECK(strided.all(1, 1) == 0);
  CHECK(strided.all(0, 2) == 1);
  CHECK(strided.all(1, 2) == 1);
}

TEST_CASE("a const object shows its tensors to read, without a copy and without a second overload of its own") {
  module values({{1, 3}, {2, 2}});
  values.experts[1](1, 0) = 5;
  std::vector<std::string> names;
  std::vector<const float*> where;
  hmoe::detail::visit_as_const(std::as_const(values), [&](const parameter_info& info, matrix_view<const float> view) {
    names.push_back(info.full_name());
    where.push_back(view.data());
  });
  CHECK(names == std::vector<std::string>{"experts.0.gate", "experts.1.gate", "scale"});
  CHECK(where == std::vector<const float*>{values.experts[0].data(), values.experts[1].data(), values.router.data()});
}

TEST_CASE("a list keeps the shape of each tensor and the expert that it belongs to") {
  module values({{1, 3}, {4, 2}}), gradients({{1, 3}, {4, 2}});
  std::vector<hmoe::parameter<float>> list;
  hmoe::append_parameters<float>(values, gradients, "", list);
  REQUIRE(list.size() == 3);
  CHECK(list[1].rows == 4);
  CHECK(list[1].cols == 2);
  CHECK(list[1].expert == 1);
  CHECK(list[2].expert == parameter_info::no_expert);
  module transposed({{1, 3}, {2, 4}}); // as many values in another shape
  CHECK_THROWS_WITH_AS(hmoe::append_parameters<float>(values, transposed, "", list),
                       doctest::Contains("the gradient of experts.1.gate is 2 x 4"), hmoe::error);
  CHECK(list.size() == 3);
}

TEST_CASE("a tensor whose rows do not follow one another is refused") {
  left_columns values, gradients;
  std::vector<hmoe::parameter<float>> list;
  CHECK_THROWS_WITH_AS(hmoe::append_parameters<float>(values, gradients, "", list),
                       doctest::Contains("the rows of left, 2 values each, lie 3 values apart"), hmoe::error);
  CHECK(list.empty());
}
