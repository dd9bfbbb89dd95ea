// SPDX-License-Identifier: MIT
// Layers whose experts are divided among the processes that mpirun has started.
#include <hmoe/parallel/by_cost.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/global_batch.hpp>
#include <hmoe/parallel/gradients.hpp>
#include <hmoe/parallel/mpi.hpp>

#include "moe_feed_forward.hpp"
#include "process_group.hpp"

#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace language_model {
namespace {

using communicator = hmoe::communicators::mpi;
using strategy = hmoe::dispatch::expert_parallel<communicator>;

/// Experts by their size on processes that have as many each as the others: all are chosen equally often, as far as is
/// known before training.
hmoe::expert_placement place(const variant& v, std::size_t ranks) {
  hmoe::placement::problem p;
  for (const std::size_t width : v.all_widths()) {
    p.loads.push_back(1);
    p.flops_per_row.push_back(static_cast<double>(width));
    p.bytes.push_back(width);
  }
  p.ranks = ranks;
  p.slots_per_rank = (p.experts() + ranks - 1) / ranks;
  return hmoe::placement::by_cost(p);
}

class parallel_feed_forward final : public moe_feed_forward<float, hmoe::expert_set<swiglu_bank<float>>, strategy> {
  using base = moe_feed_forward<float, hmoe::expert_set<swiglu_bank<float>>, strategy>;

public:
  parallel_feed_forward(const communicator& ranks, const layer_setup& s, const layer_router<float>& router,
                        std::unique_ptr<adaptation<float>> rule, strategy dispatch)
      : base(s, router, std::move(rule), std::move(dispatch)), ranks_(ranks) {}

  double add_auxiliary_losses() override { return hmoe::parallel::evaluate(ranks_, losses_, layer_, tape_, all_); }
  void after_step() override { follow(all_.trace()); }

private:
  const communicator& ranks_;
  hmoe::parallel::global_batch<float> all_; ///< memory for it is little here: routers know eight experts
};

/// A list of parameters as the functions of hmoe/parallel take gradients.
struct gradients_of {
  const process_group::parameters& list;

  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    for (const auto& p : list)
      visit(hmoe::parameter_info{.name = p.name, .decay = p.decay, .expert = p.expert},
            hmoe::matrix_view<float>(p.gradient.data(), 1, p.gradient.size()));
  }
};

class mpi_processes final : public process_group {
public:
  mpi_processes() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    ranks_.emplace(MPI_COMM_WORLD);
  }
  ~mpi_processes() override {
    ranks_.reset();
    MPI_Finalize();
  }

  std::size_t rank() const override { return ranks_->rank(); }
  std::size_t size() const override { return ranks_->size(); }
  void sum(std::span<std::uint64_t> values) const override { ranks_->all_reduce(values); }
  void gather(std::span<const float> own, std::span<float> all) const override { ranks_->all_gather<float>(own, all); }
  std::unique_ptr<feed_forward<float>> make_layer(const layer_setup& setup, const layer_router<float>& router,
                                                  std::unique_ptr<adaptation<float>> rule) const override {
    auto placed = place(setup.what, size());
    placed_ = placed; // the same for all layers of a model, which have experts of the same sizes
    return std::make_unique<parallel_feed_forward>(*ranks_, setup, router, std::move(rule),
                                                   strategy(*ranks_, std::move(placed)));
  }
  void finish_gradients(const parameters& list, double most) const override {
    gradients_of gradients{list};
    hmoe::training::sum_gradients(*ranks_, placed(), gradients);
    hmoe::training::clip_gradient_norm(*ranks_, placed(), gradients, most);
  }
  void collect(std::size_t expert, std::span<float> values) const override {
    // One process has bits, the others zeros: sums of integers are exact, those of −0 and 0 would not be.
    std::vector<std::uint32_t> bits(values.size(), 0);
    if (placed().replicas(expert)[0].rank == rank())
      for (std::size_t i = 0; i < values.size(); ++i)
        bits[i] = std::bit_cast<std::uint32_t>(values[i]);
    ranks_->all_reduce(std::span(bits));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = std::bit_cast<float>(bits[i]);
  }
  void abort() const override { MPI_Abort(MPI_COMM_WORLD, 1); }

private:
  const hmoe::expert_placement& placed() const {
    hmoe::require(placed_.has_value(), "these processes have no layers yet");
    return *placed_;
  }

  std::optional<communicator> ranks_;
  mutable std::optional<hmoe::expert_placement> placed_;
};

} // namespace

std::unique_ptr<process_group> start_processes() { return std::make_unique<mpi_processes>(); }

} // namespace language_model
