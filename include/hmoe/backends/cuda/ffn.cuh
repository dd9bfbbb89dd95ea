// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// The grouped expert kernels, as the layer calls them. All only enqueue work on `stream`; how many rows there are is
/// read from the plan on the device. A launch that fails throws hmoe::error.
///
/// A forward pass where the gate weights are on the output (the usual place):
///   ffn_forward per bank with x = {x, plan.tokens, stride}; combine with the gate weights.
/// and the backward pass:
///   ffn_backward per bank with dy = {dy, plan.tokens, stride} and the gate weights → d_rows, d_weights;
///   combine(d_rows → dx) without weights.
/// Where the weights are on the input (Llama 4):
///   weigh_rows(x → scaled = w·x); ffn_forward with x = {scaled, null, d}; combine without weights.
///   ffn_backward with the same dy, without weights; weigh_rows(x, d_rows → d_weights = ⟨x, d_rows⟩);
///   combine(d_rows → dx) with the gate weights.
namespace hmoe::backends::cuda_detail {

/// outputs[slot] = expert(x[slot]) for the slots of one bank. Lanes = 2: Gate models hmoe::gating; Lanes = 1: Gate is
/// an hmoe::activation. Weight is S, or for the 16-bit S a quantised block. `piece`: a part of it.
template <std::size_t Lanes, class S, class Weight, class Gate>
void ffn_forward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                 const ffn_arrays<Weight>& weights, const ffn_forward_arrays<S>& pass, Gate gate, void* workspace,
                 const ffn_options& options, const ffn_piece& piece = {});

/// d_rows = ∂L/∂x row by row, d_weights = ∂L/∂(gate weight), gradients += ∂L/∂weights, for the slots of one bank. Every
/// gradient sums over the rows of its expert in the order of slots. The sums of a gate weight have an order that
/// depends on d and the expert's width.
template <std::size_t Lanes, class S, class Gate>
void ffn_backward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                  const ffn_arrays<S>& weights, const ffn_backward_arrays<S>& pass,
                  const ffn_gradient_arrays& gradients, Gate gate, void* workspace, const ffn_options& options,
                  const ffn_piece& piece = {});

/// y[t] = base[t] + Σ_a weights[a] · rows[slots[a]] over the entries a of token t in ascending order of experts.
/// Entries without a slot are left out. `weights` null: all 1; `base` null: 0. Out is float, hmoe::bfloat16 or
/// hmoe::half; base and y may be the same memory where Out is float. The sum is in float, rounded once.
template <class Out>
void combine(cudaStream_t stream, const assignment_arrays& assigned, const index_t* slots, const float* rows,
             const float* weights, const float* base, std::size_t base_stride, Out* y, std::size_t y_stride, index_t d);

/// For each slot s of these experts, of token t and entry a:
///   scaled[s] = weights[a] · from[t]     where scaled is not null, [capacity × d]
///   dots[a] = ⟨from[t], rows[s]⟩         where dots is not null; rows is [capacity × d]
template <class S>
void weigh_rows(cudaStream_t stream, const plan_arrays& plan, const expert_range& experts, const float* weights,
                const S* from, std::size_t from_stride, S* scaled, const float* rows, float* dots, index_t d);

} // namespace hmoe::backends::cuda_detail

#include <hmoe/backends/cuda/combine.cuh>
#include <hmoe/backends/cuda/ffn_backward.cuh>
#include <hmoe/backends/cuda/ffn_forward.cuh>
#include <hmoe/core/macros_on.hpp>
