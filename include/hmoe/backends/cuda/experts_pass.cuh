// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#ifndef __CUDACC__
#error "hmoe/backends/cuda/experts_pass.cuh is for nvcc: host code includes hmoe/backends/cuda/experts_pass.hpp"
#endif

/// The kernels of cuda_experts. One .cu of the program includes it and instantiates what host code uses,
///   template class hmoe::backends::cuda_experts<2, hmoe::bfloat16, hmoe::experts::gated<hmoe::experts::silu>>;

#include <hmoe/backends/cuda/choices.cuh>
#include <hmoe/backends/cuda/experts_pass.hpp>
#include <hmoe/backends/cuda/ffn.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/plan.cuh>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends {

namespace cuda_detail {

/// What both passes make of the choices, and their scratch.
struct chosen_arrays {
  choice_entries choices;
  assignment_arrays assigned;
  plan_arrays plan;
  std::byte* scratch; ///< of the plan and of products, which run one after the other

  [[nodiscard]] static chosen_arrays take(carver& memory, std::size_t tokens, std::size_t choices,
                                          std::size_t experts) {
    const std::size_t entries = tokens * choices;
    chosen_arrays result{};
    result.choices = {memory.take<std::uint8_t>(entries), memory.take<index_t>(entries), memory.take<index_t>(tokens),
                      memory.take<index_t>(tokens)};
    result.assigned = {memory.take<index_t>(tokens + 1), memory.take<index_t>(entries), memory.take<float>(entries),
                       static_cast<index_t>(tokens), static_cast<index_t>(entries)};
    result.plan = {memory.take<index_t>(experts + 1), memory.take<index_t>(entries), memory.take<index_t>(entries),
                   memory.take<index_t>(entries),     static_cast<index_t>(experts), static_cast<index_t>(entries)};
    result.scratch = memory.take<std::byte>(std::max(build_plan_bytes(tokens, experts), ffn_workspace_bytes(experts)));
    return result;
  }
  void make(const choice_source& from, cudaStream_t stream) const {
    launch_choices(from, choices, assigned, stream);
    build_plan(assigned, plan, nullptr, 0, scratch, stream);
  }
};

[[nodiscard]] inline choice_source source_of(const device_choices& chosen, std::size_t experts) noexcept {
  return {chosen.ids.data(),
          chosen.weights.data(),
          chosen.ids.stride(),
          chosen.weights.stride(),
          static_cast<index_t>(chosen.ids.rows()),
          static_cast<index_t>(chosen.ids.cols()),
          static_cast<index_t>(experts)};
}

/// A forward pass in the workspace. Arrays that the caller keeps are not taken.
template <class S> struct experts_forward_arrays {
  chosen_arrays chosen;
  S* activated;
  float* outputs;

  [[nodiscard]] static experts_forward_arrays take(carver& memory, const experts_layout& layout, std::size_t tokens,
                                                   std::size_t choices, bool keeps) {
    experts_forward_arrays result{};
    result.chosen = chosen_arrays::take(memory, tokens, choices, layout.size());
    if (!keeps) {
      result.activated = memory.take<S>(tokens * choices * ffn_hidden_stride<S>(layout.widest()));
      result.outputs = memory.take<float>(tokens * choices * layout.d_model());
    }
    return result;
  }
};

template <std::size_t Lanes, class S> struct experts_backward_arrays {
  chosen_arrays chosen;
  S* d_projected;
  float *d_entries, *dots;

  [[nodiscard]] static experts_backward_arrays take(carver& memory, const experts_layout& layout, std::size_t tokens,
                                                    std::size_t choices) {
    const std::size_t entries = tokens * choices;
    experts_backward_arrays result{};
    result.chosen = chosen_arrays::take(memory, tokens, choices, layout.size());
    result.d_projected = memory.take<S>(entries * Lanes * ffn_hidden_stride<S>(layout.widest()));
    result.d_entries = memory.take<float>(entries);
    result.dots = memory.take<float>(entries * dot_parts(ffn_hidden_stride<S>(layout.widest())));
    return result;
  }
};

} // namespace cuda_detail

template <std::size_t Lanes, class S, class Gate>
std::size_t cuda_experts<Lanes, S, Gate>::forward_bytes(const experts_layout& layout, std::size_t tokens,
                                                        std::size_t choices, bool keeps) {
  cuda_detail::carver count;
  (void)cuda_detail::experts_forward_arrays<S>::take(count, layout, tokens, choices, keeps);
  return count.used();
}
template <std::size_t Lanes, class S, class Gate>
std::size_t cuda_experts<Lanes, S, Gate>::backward_bytes(const experts_layout& layout, std::size_t tokens,
                                                         std::size_t choices) {
  cuda_detail::carver count;
  (void)cuda_detail::experts_backward_arrays<Lanes, S>::take(count, layout, tokens, choices);
  return count.used();
}

template <std::size_t Lanes, class S, class Gate>
cuda_detail::ffn_arrays<S> cuda_experts<Lanes, S, Gate>::arrays() const noexcept {
  return {weights_.in,
          weights_.out,
          weights_.in_bias,
          weights_.out_bias,
          arrays_.in,
          arrays_.out,
          arrays_.in_bias,
          arrays_.widths,
          arrays_.widths,
          static_cast<index_t>(layout_->size()),
          0,
          static_cast<index_t>(layout_->d_model()),
          static_cast<index_t>(layout_->d_model())};
}

template <std::size_t Lanes, class S, class Gate>
void cuda_experts<Lanes, S, Gate>::run_forward(const cuda_context& ctx, input x, const device_choices& chosen, output y,
                                               const kept_type& kept) const {
  check(x, chosen, y, "y");
  check_output(x, y, "y");
  const std::size_t tokens = x.rows(), choices = chosen.ids.cols(), stride = hidden_stride(*layout_);
  const bool keeps = kept.outputs != nullptr;
  if (tokens == 0)
    return;
  const cuda_detail::device_guard guard(ctx.device());
  cuda_detail::carver memory(
      ctx.workspace().block_for(forward_bytes(*layout_, tokens, choices, keeps), ctx.executor()));
  const auto pass = cuda_detail::experts_forward_arrays<S>::take(memory, *layout_, tokens, choices, keeps);
  const auto& [entries, assigned, plan, scratch] = pass.chosen;
  float* const outputs = keeps ? kept.outputs : pass.outputs;
  if (choices == 0) {
    cuda_detail::require_cuda(cudaMemsetAsync(assigned.offsets, 0, (tokens + 1) * sizeof(index_t), ctx.stream()),
                              "clearing device memory");
  } else {
    pass.chosen.make(cuda_detail::source_of(chosen, layout_->size()), ctx.stream());
    S* const activated = keeps ? kept.hidden : pass.activated;
    cuda_detail::ffn_forward<Lanes, S, S>(ctx.stream(), {ctx.multiprocessors(), ctx.compute_capability()}, plan,
                                          arrays(),
                                          {{x.data(), plan.tokens, x.stride()},
                                           activated,
                                           keeps ? kept.hidden + tokens * choices * stride : nullptr,
                                           outputs,
                                           stride},
                                          gate_, scratch, {ctx.backend().math, false, ctx.backend().tiles});
  }
  cuda_detail::combine<S>(ctx.stream(), assigned, plan.slots, outputs, assigned.weights, nullptr, 0, y.data(),
                          y.stride(), static_cast<index_t>(layout_->d_model()));
}

template <std::size_t Lanes, class S, class Gate>
void cuda_experts<Lanes, S, Gate>::backward(const cuda_context& ctx, input x, const device_choices& chosen, input dy,
                                            const kept_type& kept, output dx,
                                            matrix_view<float, device_space> d_weights,
                                            const gradients_type& gradients) const {
  check(x, chosen, dy, "dy");
  check(x, chosen, dx, "dx");
  check_output(dy, dx, "dx");
  const std::size_t tokens = x.rows(), choices = chosen.ids.cols(), stride = hidden_stride(*layout_);
  require(d_weights.rows() == tokens && d_weights.cols() == choices, "d_weights is ", d_weights.rows(), " x ",
          d_weights.cols(), ", needed is ", tokens, " x ", choices);
  require_kept(tokens, chosen, kept);
  require((gradients.in_bias == nullptr || weights_.in_bias != nullptr) &&
              (gradients.out_bias == nullptr || weights_.out_bias != nullptr),
          "gradients of biases were given for experts without biases");
  if (tokens == 0)
    return;
  const cuda_detail::device_guard guard(ctx.device());
  cuda_detail::carver memory(ctx.workspace().block_for(backward_bytes(*layout_, tokens, choices), ctx.executor()));
  const auto pass = cuda_detail::experts_backward_arrays<Lanes, S>::take(memory, *layout_, tokens, choices);
  const auto& [entries, assigned, plan, scratch] = pass.chosen;
  const std::size_t d = layout_->d_model();
  if (choices == 0) {
    cuda_detail::require_cuda(cudaMemsetAsync(assigned.offsets, 0, (tokens + 1) * sizeof(index_t), ctx.stream()),
                              "clearing device memory");
  } else {
    const auto source = cuda_detail::source_of(chosen, layout_->size());
    pass.chosen.make(source, ctx.stream());
    cuda_detail::ffn_backward<Lanes, S>(ctx.stream(), {ctx.multiprocessors(), ctx.compute_capability()}, plan, arrays(),
                                        {{x.data(), plan.tokens, x.stride()},
                                         {dy.data(), plan.tokens, dy.stride()},
                                         {assigned.weights, plan.entries},
                                         kept.hidden + tokens * choices * stride,
                                         pass.d_projected,
                                         kept.hidden, // forward's hidden values are computed again, into their place
                                         pass.dots,
                                         pass.d_entries,
                                         kept.outputs, // as the outputs, which nobody reads after forward
                                         stride},
                                        {gradients.in, gradients.out, gradients.in_bias, gradients.out_bias}, gate_,
                                        scratch, {ctx.backend().math, false, ctx.backend().tiles});
    cuda_detail::launch_spread(source, entries, pass.d_entries, d_weights.data(), d_weights.stride(), ctx.stream());
  }
  cuda_detail::combine<S>(ctx.stream(), assigned, plan.slots, kept.outputs, nullptr, nullptr, 0, dx.data(), dx.stride(),
                          static_cast<index_t>(d));
}

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
