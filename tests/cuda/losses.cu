// SPDX-License-Identifier: MIT
// Losses on the device against the same losses on the host, on what the device routed.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/losses.cuh>
#include <hmoe/losses/objective.hpp>
#include <hmoe/routing/presets.hpp>

#include "losses/own_loss.hpp"
#include "routed.cuh"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

/// A loss of a user with a kernel of their own: Σ_t z_{t,0}² / T.
namespace user {
struct first_logit {
  double coefficient = 0.5;
  static constexpr std::string_view name = "first_logit";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    const auto z = std::as_const(batch.trace).logits();
    const auto tokens = static_cast<double>(z.rows());
    double sum = 0;
    for (std::size_t t = 0; t < z.rows(); ++t) {
      const auto first = static_cast<double>(z(t, 0));
      sum += first * first / tokens;
      batch.trace.d_logits()(t, 0) += static_cast<T>(coefficient * 2 * first / tokens);
    }
    return sum;
  }
};
template <unsigned Threads>
__global__ void square_first_logits(kernels::trace_arrays trace, double coefficient, double* rows) {
  const auto tokens = static_cast<double>(trace.tokens);
  for (index_t t = threadIdx.x; t < trace.tokens; t += Threads) {
    const auto first = static_cast<double>(trace.logits[std::size_t{t} * trace.experts]);
    rows[t] = first * first / tokens;
    trace.d_logits[std::size_t{t} * trace.experts] += static_cast<float>(coefficient * 2 * first / tokens);
  }
}
void launch_loss(const first_logit& loss, const kernels::routed_batch_arrays& batch,
                 const kernels::loss_scratch& scratch, double* value, cudaStream_t stream) {
  square_first_logits<64><<<1, 64, 0, stream>>>(batch.trace, loss.coefficient, scratch.rows);
  kernels::launch_sum_rows(batch, scratch, value, stream);
}
} // namespace user

// In an unnamed namespace nvcc warns of members that the tests of a router do not call.
namespace loss_checks {

/// A batch that the device routed, and the host's copy of it.
template <class Router> class batch {
public:
  batch(Router router, std::size_t tokens)
      : router_(drawn(std::move(router))),
        device_(tokens, router_.routed(), router_.size(), tokens * router_.max_selected()), widths_(widths()),
        device_widths_(std::vector<index_t>(widths_.begin(), widths_.end())) {
    const on_device::batch<float> x(tokens, router_.d_model(), 2);
    const on_device::parameters parameters(router_);
    on_device::route(parameters.view, x, device_);
    trace_.resize(tokens, router_.routed(), 0, true);
    copy(device_.logits.download(), trace_.logits().data());
    copy(device_.probabilities.download(), trace_.probabilities().data());
    copy(device_.tokens_per_expert.download(), trace_.tokens_per_expert().data());
    assigned_.resize_tokens(tokens);
    copy(device_.offsets.download(), assigned_.offsets().data());
    assigned_.resize_entries();
    REQUIRE(assigned_.size() <= device_.experts_of.size());
    const auto ids = device_.experts_of.download();
    const auto weights = device_.weights.download();
    std::copy_n(ids.begin(), assigned_.size(), assigned_.experts().data());
    std::copy_n(weights.begin(), assigned_.size(), assigned_.weights().data());
    assigned_.validate(router_.size());
  }

  /// Values and gradients are the host's, also where losses before have left gradients in the sinks.
  template <class... Losses> void check(const objective<Losses...>& aux) {
    const std::size_t tokens = device_.trace.tokens, experts = device_.trace.experts,
                      bytes = tokens * experts * sizeof(float);
    kernels::require_cuda(cudaMemset(device_.d_logits.data(), 0, bytes), "clearing");
    kernels::require_cuda(cudaMemset(device_.d_probabilities.data(), 0, bytes), "clearing");
    trace_.clear_gradients();
    const on_device::array<double> values(sizeof...(Losses));
    const on_device::array<std::byte> workspace(kernels::evaluate_losses_bytes(aux, tokens, experts));
    routed_batch<float> batch{trace_, assigned_, widths_};
    const kernels::routed_batch_arrays arrays{device_.trace,
                                              device_.assigned,
                                              device_.plan,
                                              device_widths_.data(),
                                              static_cast<index_t>(widths_.back()),
                                              sequences_.data(),
                                              static_cast<index_t>(sequences_.size() == 0 ? 0 : sequences_.size() - 1),
                                              filled_,
                                              static_cast<index_t>(tokens)};
    INFO("experts ", experts, ", tokens ", tokens);
    for (int round = 0; round < 2; ++round) {
      const auto expected = aux.evaluate(batch);
      kernels::evaluate_losses(aux, arrays, values.data(), workspace.data(), nullptr);
      kernels::require_cuda(cudaDeviceSynchronize(), "losses");
      const auto report = kernels::report_of(aux, values.download().data());
      for (std::size_t i = 0; i < sizeof...(Losses); ++i) {
        INFO(std::string(expected.terms[i].name));
        CHECK(report.terms[i].name == expected.terms[i].name);
        CHECK(report.terms[i].coefficient == expected.terms[i].coefficient);
        CHECK(report.terms[i].value == doctest::Approx(expected.terms[i].value).epsilon(1e-12));
      }
      check_near(device_.d_probabilities.download(), std::as_const(trace_).d_probabilities());
      check_near(device_.d_logits.download(), std::as_const(trace_).d_logits());
    }
  }

  /// Losses look at these sequences from now on. The offsets must live as long.
  void set_sequences(const std::vector<index_t>& offsets) {
    routing_inputs<float> inputs;
    inputs.sequence_offsets = offsets;
    trace_.set_inputs(inputs);
    sequences_ = on_device::array<index_t>(offsets);
    filled_ = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      filled_ += offsets[s] < offsets[s + 1] ? 1 : 0;
  }

private:
  template <class T> static void copy(const std::vector<T>& from, T* to) { std::copy(from.begin(), from.end(), to); }
  static Router drawn(Router router) {
    router.initialize(seed{3}, 0, {.router_stddev = 0.4});
    return router;
  }
  [[nodiscard]] std::vector<std::size_t> widths() const {
    std::vector<std::size_t> result;
    for (std::size_t e = 0; e < router_.routed(); ++e)
      result.push_back(8 + 3 * e);
    return result;
  }
  static void check_near(const std::vector<float>& a, matrix_view<const float> b) {
    double largest = 1e-30;
    for (std::size_t i = 0; i < b.size(); ++i)
      largest = std::max(largest, std::abs(double{b.data()[i]}));
    for (std::size_t i = 0; i < b.size(); ++i)
      if (!(std::abs(double{a[i]} - double{b.data()[i]}) <= 1e-6 * largest)) {
        CHECK_MESSAGE(false, "gradient ", i, ": ", a[i], " instead of ", b.data()[i]);
        return;
      }
  }

  Router router_;
  on_device::routed device_;
  std::vector<std::size_t> widths_;
  on_device::array<index_t> device_widths_, sequences_;
  index_t filled_ = 0;
  router_trace<float> trace_;
  assignment<float> assigned_;
};

template <class Router> void check_all(const Router& router, std::size_t tokens) {
  batch routed(router, tokens);
  using losses::balance_counts;
  using losses::balance_normalization;
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one})
      routed.check(objective{losses::load_balance{0.5, counts, normalization}});
  for (const auto unit : {losses::width_unit::mean, losses::width_unit::raw, losses::width_unit::max})
    routed.check(objective{losses::parameter_penalty{0.1, unit}});
  for (const auto gates :
       {losses::gate_values::probabilities, losses::gate_values::selected, losses::gate_values::renormalized})
    routed.check(objective{losses::importance{0.7, gates}});
  routed.check(objective{losses::of_tokens<support::margin>{0.4}, user::first_logit{}});
  std::vector<double> costs;
  for (std::size_t e = 0; e < router.routed(); ++e)
    costs.push_back(static_cast<double>(e * e % 17 + 1));
  routed.check(objective{losses::compute_cost{0.3}, losses::compute_cost{0.3, costs}, losses::router_entropy{0.03},
                         losses::z{0.2}});
}

} // namespace loss_checks

using namespace loss_checks;

TEST_CASE("values and gradients are the host's") {
  for (const std::size_t tokens : {0, 1, 50})
    check_all(routing::presets::hmoe_top_p<float>{16, 8, 0.6}, tokens);
  check_all(routing::presets::qwen2_moe<float>{16, 40, 4}, 20);
  check_all(routing::presets::hmoe_top_p<float>{4, 1, 0.6}, 3);
}

TEST_CASE("balance within sequences") {
  batch routed(routing::presets::qwen2_moe<float>{16, 40, 4}, 50);
  using losses::balance_counts, losses::balance_normalization;
  const std::vector<index_t> offsets{0, 7, 7, 40, 41, 50};
  for (const bool whole : {true, false}) {
    if (!whole)
      routed.set_sequences(offsets);
    for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
      routed.check(objective{losses::sequence_balance{0.3, counts, balance_normalization::to_k},
                             losses::sequence_balance{0.2, counts, balance_normalization::to_one, false}});
  }
}

TEST_CASE("few tokens [race]") { check_all(routing::presets::hmoe_top_p<float>{8, 6, 0.6}, 5); }

TEST_CASE("more tokens and experts than one block adds up, tokens without an expert") {
  check_all(routing::presets::hmoe_top_p<float>{4, 6, 0.6}, 1100);
  check_all(routing::threshold_router<float>{8, 300, 0.008}, 5);
}

TEST_CASE("what cannot be evaluated") {
  const on_device::routed device(2, 6, 6, 12);
  const auto error_of = [&](const kernels::routed_batch_arrays& batch, const auto& loss) {
    try {
      const objective aux{losses::z{0.1}, loss};
      const on_device::array<std::byte> workspace(kernels::evaluate_losses_bytes(aux, 2, 6));
      const on_device::array<double> value(2);
      kernels::evaluate_losses(aux, batch, value.data(), workspace.data(), nullptr);
    } catch (const hmoe::error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  // Experts without hidden units, such as identity and constant; texts are the host's.
  kernels::routed_batch_arrays batch{device.trace, device.assigned, device.plan, nullptr, 0};
  for (const index_t tokens : {0, 2}) {
    batch.trace.tokens = tokens;
    CHECK(error_of(batch, losses::compute_cost{0.3, {1, 2}}) == "hmoe: compute_cost: there are 2 costs for 6 experts");
    for (const auto& costs : {std::vector<double>{}, std::vector<double>(6), std::vector<double>{3, 3, 3, -3, -3, -3}})
      CHECK(error_of(batch, losses::compute_cost{0.3, costs}) ==
            "hmoe: compute_cost: the mean cost of 6 experts is 0, it must be positive");
    for (const auto unit : {losses::width_unit::mean, losses::width_unit::max})
      CHECK(error_of(batch, losses::parameter_penalty{0.1, unit}) ==
            "hmoe: parameter_penalty: all 6 experts have width 0");
  }
  batch.widest = 4;
  batch.trace.d_logits = nullptr;
  CHECK(error_of(batch, losses::compute_cost{}) ==
        "hmoe: an auxiliary loss needs a trace with gradient sinks: run forward with a tape");
}
