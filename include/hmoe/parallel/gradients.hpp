// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/placement.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

/// What ranks that train one layer have to add up. Gradients are those of layer.make_gradients(), after the backward
/// passes of all ranks; every function is collective.
namespace hmoe::training {

/// For what takes a function that adds up counts over all processes, as losses::load_accumulator::add does. The
/// communicator must outlive it.
template <communicator Communicator> [[nodiscard]] auto summed_over(const Communicator& ranks) {
  return [&ranks](std::span<std::uint64_t> counts) { ranks.template all_reduce<std::uint64_t>(counts); };
}

/// Replaces the gradients that several ranks have parts of by their sum: those of the router and of experts with
/// replicas, which then have the same bits on all ranks, so that equal weights stay equal. Experts with one replica
/// have all of their gradient on their rank already.
template <communicator Communicator, class Gradients>
void sum_gradients(const Communicator& ranks, const expert_placement& placed, Gradients& gradients) {
  gradients.visit_parameters([&]<class T>(const parameter_info& info, matrix_view<T> view) {
    if (info.expert != parameter_info::no_expert && placed.replicas(info.expert).size() == 1)
      return;
    if (view.stride() == view.cols())
      ranks.template all_reduce<T>(std::span<T>(view.data(), view.size()));
    else
      for (std::size_t r = 0; r < view.rows(); ++r)
        ranks.template all_reduce<T>(std::span<T>(view.row(r).data(), view.cols()));
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
