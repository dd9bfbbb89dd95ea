// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/parameter.hpp>

#include "adaptation.hpp"
#include "feed_forward.hpp"
#include "layer_router.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace language_model {

struct layer_setup;

/// Processes that train one model together, each with a part of every batch and of the experts. Whatever is no expert
/// is on all of them. All functions but rank, size and abort are called by all processes at the same time.
class process_group {
public:
  using parameters = std::vector<hmoe::parameter<float>>;

  process_group() = default;
  process_group(const process_group&) = delete;
  process_group& operator=(const process_group&) = delete;
  virtual ~process_group() = default;

  virtual std::size_t rank() const = 0;
  virtual std::size_t size() const = 0;

  /// Replaces values by their sums over all processes.
  virtual void sum(std::span<std::uint64_t> values) const = 0;
  /// all = the values of all processes, by rank.
  virtual void gather(std::span<const float> own, std::span<float> all) const = 0;

  /// A layer whose experts are divided among the processes.
  virtual std::unique_ptr<feed_forward<float>> make_layer(const layer_setup& setup, const layer_router<float>& router,
                                                          std::unique_ptr<adaptation<float>> rule) const = 0;
  /// Adds up the gradients of what several processes have, and cuts their norm over all processes to `most`.
  virtual void finish_gradients(const parameters& list, double most) const = 0;
  /// values = those of the process that has the expert. For tensors of any sort: weights and an optimiser's moments.
  virtual void collect(std::size_t expert, std::span<float> values) const = 0;

  /// Ends all processes; for errors that the others do not know of.
  virtual void abort() const = 0;
};

/// The processes that mpirun has started. hmoe::error where the program is built without MPI.
std::unique_ptr<process_group> start_processes();

} // namespace language_model
