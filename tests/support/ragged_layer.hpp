// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/top_k.hpp>

#include <cstddef>
#include <vector>

namespace support {

/// A layer as pruning leaves it, d_model 4: kept experts 0, 2 and 5 of widths 3, 1 and 0, MoNE's constant vectors 1 and
/// 4 (width 0 with an output bias), a MoE++ constant 3, an identity 6. The values are multiples of 1/16, all different.
template <class T> auto make_ragged_layer(std::vector<std::size_t> widths = {3, 1, 0}) {
  using namespace hmoe;
  using bank = experts::glu_bank<T, experts::silu>;
  expert_set set{expert_ids{{{0, 2, 5}, {1, 4}, {3}, {6}}}, bank(4, widths), bank(4, {0, 0}, experts::biases::all),
                 experts::constant_bank<T>(4), experts::identity_bank<T>(4)};
  using selection = routing::biased<T, routing::top_k<>>;
  using router = routing::router<routing::linear<T, routing::sigmoid>, selection>;
  moe_layer layer{std::move(set), router(4, 7, selection(7, routing::top_k<>{2}))};
  T next = 0;
  layer.visit_parameters([&](const parameter_info&, matrix_view<T> values) {
    for (std::size_t r = 0; r < values.rows(); ++r)
      for (T& value : values.row(r))
        value = (next += 1) / 16;
  });
  return layer;
}

} // namespace support
