// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/threads.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

/// One batch, as a whole in one process, and in parts on several ranks.
namespace support {

inline constexpr std::size_t parallel_d = 10, parallel_experts = 7;

template <class T>
using unequal_experts = hmoe::expert_set<hmoe::experts::glu_bank<T, hmoe::experts::silu>,
                                         hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>>;
template <class T> unequal_experts<T> make_unequal_experts() {
  unequal_experts<T> experts{
      hmoe::experts::glu_bank<T, hmoe::experts::silu>(parallel_d, {1, 5, 3, 8}, hmoe::experts::biases::all),
      hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>(parallel_d, {4, 2, 6})};
  random_source random(61);
  experts.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) { fill(random, view); });
  return experts;
}

/// Token t of the whole batch goes to expert e: 0 to 3 experts each, many to expert 1, none to expert 4.
inline bool goes_to(std::size_t t, std::size_t e) {
  return e != 4 && t % 7 != 3 && (e == 1 || (t * t + 3 * e) % 5 == 0);
}

/// What the passes over some tokens compute; gradients tensor by tensor, in the order of the set.
template <class T> struct part_result {
  std::vector<T> y, inferred, dx, d_weights;
  std::vector<std::vector<T>> gradients;
};

/// The tokens [first, last) of the whole batch of `all` tokens.
template <class T, class Context, class Dispatch>
part_result<T> run_part(const Context& ctx, const Dispatch& dispatch, const unequal_experts<T>& experts,
                        std::size_t all, std::size_t first, std::size_t last, bool on_input) {
  random_source random(62), other(63), third(64);
  const auto whole_x = random_matrix<T>(random, all, parallel_d), whole_dy = random_matrix<T>(other, all, parallel_d);
  const auto weights = random_matrix<T>(third, all, parallel_experts);
  const std::size_t tokens = last - first;
  const auto x = whole_x.view().row_block(first, tokens), dy = whole_dy.view().row_block(first, tokens);
  hmoe::tape<T> tape, inference(std::pmr::get_default_resource(), false);
  for (hmoe::tape<T>* to : {&tape, &inference}) {
    to->set_weights_on_input(on_input);
    auto& assigned = to->assignment();
    assigned.resize_tokens(tokens);
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t e = 0; e < parallel_experts; ++e)
        assigned.offsets()[t + 1] += goes_to(first + t, e) ? 1 : 0;
    assigned.sum_counts();
    assigned.resize_entries();
    for (std::size_t t = 0, a = 0; t < tokens; ++t)
      for (std::size_t e = 0; e < parallel_experts; ++e)
        if (goes_to(first + t, e)) {
          assigned.experts()[a] = static_cast<hmoe::index_t>(e);
          assigned.weights()[a++] = weights(first + t, e);
        }
  }
  hmoe::matrix<T> y(tokens, parallel_d), inferred(tokens, parallel_d), dx(tokens, parallel_d);
  part_result<T> result;
  result.d_weights.resize(tape.assignment().size(), T(77));
  unequal_experts<T> gradients = experts;
  hmoe::set_zero(gradients);
  const hmoe::workspace::scope scope(ctx.workspace());
  dispatch.forward(ctx, experts, x, inferred.view(), inference);
  dispatch.forward(ctx, experts, x, y.view(), tape);
  tape.input() = hmoe::matrix<T>(tokens, parallel_d);
  for (std::size_t t = 0; t < tokens; ++t)
    std::ranges::copy(x.row(t), tape.input().row(t).begin());
  dispatch.backward(ctx, experts, tape, dy, dx.view(), hmoe::vector_view<T>(result.d_weights), gradients);
  const auto values = [](const hmoe::matrix<T>& m) { return std::vector<T>(m.data(), m.data() + m.size()); };
  result.y = values(y);
  result.inferred = values(inferred);
  result.dx = values(dx);
  gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) {
    result.gradients.emplace_back(view.data(), view.data() + view.size());
  });
  return result;
}

/// Where the tokens of each rank begin: uneven, with a rank that has none.
inline std::vector<std::size_t> parts_of(std::size_t tokens, std::size_t ranks) {
  std::vector<std::size_t> begin(ranks + 1, 0);
  for (std::size_t r = 0; r < ranks; ++r)
    begin[r + 1] = r == 2 ? begin[r] : begin[r] + 1 + (tokens * (r + 1)) / (ranks * (ranks + 1));
  begin[ranks] = tokens;
  return begin;
}

/// The parts of the batch one behind the other; gradients added up over ranks.
template <class T> part_result<T> joined(const std::vector<part_result<T>>& parts) {
  part_result<T> result;
  for (const part_result<T>& part : parts) {
    const auto append = [](std::vector<T>& to, const std::vector<T>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(result.y, part.y);
    append(result.inferred, part.inferred);
    append(result.dx, part.dx);
    append(result.d_weights, part.d_weights);
    if (result.gradients.empty())
      result.gradients = part.gradients;
    else
      for (std::size_t i = 0; i < part.gradients.size(); ++i)
        for (std::size_t j = 0; j < part.gradients[i].size(); ++j)
          result.gradients[i][j] += part.gradients[i][j];
  }
  return result;
}

/// The whole batch on threads, whose tokens begin at these places; make(self) gives the strategy of a rank.
template <class Make>
part_result<double> run_on_threads(const std::vector<std::size_t>& begin, bool on_input, const Make& make,
                                   bool share_memory = true) {
  const auto experts = make_unequal_experts<double>();
  std::vector<part_result<double>> parts(begin.size() - 1);
  hmoe::communicators::threads(parts.size(), share_memory).run([&](const hmoe::communicators::threads::member& self) {
    const std::size_t r = self.rank();
    parts[r] = run_part<double>(hmoe::context{hmoe::backends::reference{}}, make(self), experts, begin.back(), begin[r],
                                begin[r + 1], on_input);
  });
  return joined(parts);
}

/// Experts 1 and 6 on several ranks, with uneven shares; one rank may have none.
inline hmoe::expert_placement with_replicas(std::size_t ranks) {
  std::vector<std::vector<hmoe::replica>> of(parallel_experts);
  for (std::size_t e = 0; e < parallel_experts; ++e)
    of[e] = {{(3 * e + 1) % ranks, 1.0}};
  if (ranks >= 2) {
    of[1] = {{0, 0.25}, {ranks - 1, 0.75}};
    of[6] = {{0, 0.5}, {1, 0.5}};
  }
  return {ranks, of};
}

} // namespace support
