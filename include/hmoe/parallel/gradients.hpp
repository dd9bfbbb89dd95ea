// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/placement.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

/// What ranks that train one layer have to add up. Gradients are those of layer.make_gradients(), after the backward
/// passes of all ranks; every function is collective.
namespace hmoe::training {

/// For what takes a function that adds up counts over all processes, as losses::load_accumulator::add does. The
/// communicator must outlive it.
template <communicator Communicator> [[nodiscard]] auto summed_over(const Communicator& ranks) {
  return [&ranks](std::span<std::uint64_t> counts) { ranks.template all_reduce<std::uint64_t>(counts); };
}

/// load_i = its sum over all ranks, as rules that move selection biases take it (routing::load_in_tokens,
/// load_in_flops). Whole numbers below 2^53 are added up exactly.
template <communicator Communicator> void sum_load(const Communicator& ranks, vector_view<double> load) {
  ranks.template all_reduce<double>(std::span<double>(load.data(), load.size()));
}

namespace detail {

/// Σ over the ranks that have the expert, in ascending order, for its gradient, which has no values elsewhere. Each of
/// them adds up a slice of it, so that about twice its size goes out of a rank and comes in.
template <communicator Communicator, class T>
void sum_over_replicas(const Communicator& ranks, std::span<const replica> replicas, std::span<T> gradient) {
  std::vector<std::size_t> whole(ranks.size(), 0), slices(ranks.size(), 0);
  std::size_t mine = replicas.size();
  for (std::size_t i = 0; i < replicas.size(); ++i)
    mine = replicas[i].rank == ranks.rank() ? i : mine;
  const bool here = mine != replicas.size();
  const std::size_t count = replicas.size(), n = here ? gradient.size() : 0;
  const auto slice = [&](std::size_t i) { return n * (i + 1) / count - n * i / count; };
  const std::size_t own = here ? slice(mine) : 0;
  if (here)
    for (std::size_t i = 0; i < count; ++i) {
      slices[replicas[i].rank] = slice(i);
      whole[replicas[i].rank] = own;
    }
  std::vector<T> parts(here ? own * count : 0);
  // The gradient is its slices one behind the other, in the order of ranks.
  ranks.template all_to_all<T>(gradient.first(n), slices, std::span(parts), whole);
  for (std::size_t j = 0; j < own; ++j) {
    T sum = parts[j];
    for (std::size_t i = 1; i < count; ++i)
      sum += parts[i * own + j];
    for (std::size_t i = 0; i < count; ++i)
      parts[i * own + j] = sum;
  }
  ranks.template all_to_all<T>(std::span<const T>(parts), whole, gradient.first(n), slices);
}

} // namespace detail

/// Replaces the gradients that several ranks have parts of by their sum: those of the router, and of experts with
/// replicas on the ranks that have them. All then have the same bits, so that equal weights stay equal. Experts with
/// one replica have all of their gradient on their rank already; elsewhere the gradient of an expert may have no
/// values. The sums of replicas are taken in ascending order of ranks.
template <communicator Communicator, class Gradients>
void sum_gradients(const Communicator& ranks, const expert_placement& placed, Gradients& gradients) {
  gradients.visit_parameters([&]<class T>(const parameter_info& info, matrix_view<T> view) {
    const bool replicated = info.expert != parameter_info::no_expert;
    if (replicated && placed.replicas(info.expert).size() == 1)
      return;
    const bool contiguous = view.rows() <= 1 || view.stride() == view.cols();
    std::vector<T> copy;
    std::span<T> values(view.data(), contiguous ? view.size() : 0);
    if (!contiguous) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        copy.insert(copy.end(), view.row(r).begin(), view.row(r).end());
      values = copy;
    }
    if (replicated)
      detail::sum_over_replicas(ranks, placed.replicas(info.expert), values);
    else
      ranks.template all_reduce<T>(values);
    for (std::size_t r = 0; r < view.rows() && !contiguous; ++r)
      std::ranges::copy(values.subspan(r * view.cols(), view.cols()), view.row(r).begin());
  });
}

/// √Σ g² over the whole layer, each expert counted once, after sum_gradients; the same bits on every rank.
template <communicator Communicator, class Gradients>
[[nodiscard]] double gradient_norm(const Communicator& ranks, const expert_placement& placed,
                                   const Gradients& gradients) {
  double sum = 0;
  gradients.visit_parameters([&](const parameter_info& info, auto view) {
    const std::size_t counts_on = info.expert == parameter_info::no_expert ? 0 : placed.replicas(info.expert)[0].rank;
    if (counts_on != ranks.rank())
      return;
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (const auto g : view.row(r))
        sum += static_cast<double>(g) * static_cast<double>(g);
  });
  ranks.template all_reduce<double>(std::span<double>(&sum, 1));
  return std::sqrt(sum);
}

/// Scales the gradients of all ranks by max_norm / norm when their norm over the whole layer is above max_norm; returns
/// the norm from before. By training::clip_gradient_norm each rank would scale by what it has, and the router's copies
/// would part. hmoe::error on every rank, and nothing changed, when the norm is not finite.
template <communicator Communicator, class Gradients>
double clip_gradient_norm(const Communicator& ranks, const expert_placement& placed, Gradients& gradients,
                          double max_norm) {
  require(max_norm > 0, "clip_gradient_norm needs max_norm > 0, given is ", max_norm);
  const double norm = training::gradient_norm(ranks, placed, gradients);
  require(std::isfinite(norm), "the gradient norm is ", norm, ": training has diverged");
  if (norm > max_norm)
    gradients.visit_parameters([&]<class T>(const parameter_info&, matrix_view<T> view) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (T& g : view.row(r))
          g *= static_cast<T>(max_norm / norm);
    });
  return norm;
}

} // namespace hmoe::training

#include <hmoe/core/macros_on.hpp>
