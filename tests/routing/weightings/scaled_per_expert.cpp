// SPDX-License-Identifier: MIT
#include <hmoe/core/parameter.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>

#include "routing/weightings/one_row.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t, hmoe::vector_view;

TEST_CASE("a learned scale per expert: values, gradient by hand, parameters") {
  routing::scaled_per_expert<double> weight(4);
  one_row::check_equal(one_row::weights(weight), {0.125, 0.5, 0.375}); // 1 at first
  weight.scale()[0] = 2, weight.scale()[2] = -1, weight.scale()[3] = 0;
  one_row::check_equal(one_row::weights(weight), {0.25, -0.5, 0});

  auto gradients = weight;
  hmoe::set_zero(gradients);
  const std::vector<double> w = one_row::weights(weight), dw{3, 5, 7};
  std::vector<double> scratch(weight.scratch_size(4));
  for (int token = 0; token < 2; ++token)
    weight.parameter_gradients(vector_view<const double>(one_row::logits), vector_view<const double>(one_row::p),
                               vector_view<const index_t>(one_row::chosen), vector_view<const double>(w),
                               vector_view<const double>(dw), gradients, vector_view<double>(scratch));
  one_row::check_equal({gradients.scale().begin(), gradients.scale().end()}, {0.75, 0, 5, 5.25}); // 2 dw v

  std::string names;
  weight.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
    names += info.full_name() + (info.decay ? " decays" : "") + " " + std::to_string(view.size());
  });
  CHECK(names == "router.expert_scale 4");
  weight.initialize(hmoe::seed{1}, 0, {});
  CHECK(weight.scale()[3] == 1);
  CHECK(support::error_of([&] { weight.validate(5); }) ==
        "hmoe: scaled_per_expert has scales for 4 experts, there are 5");
}
