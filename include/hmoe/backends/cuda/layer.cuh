// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#ifndef __CUDACC__
#error "hmoe/backends/cuda/layer.cuh is for nvcc: host code includes hmoe/backends/cuda.hpp"
#endif

/// The kernels of device layers. For nvcc: one .cu of the program includes it and instantiates its layers,
///   template struct hmoe::backends::cuda_kernels<host_layer, S, W>;
/// and the objectives that they are trained with,
///   template struct hmoe::backends::cuda_objective_kernels<host_layer, host_objective, S>;
/// where host_layer is the moe_layer's type. Everything else is host code.

#include <hmoe/backends/cuda/controllers.cuh>
#include <hmoe/backends/cuda/ffn.cuh>
#include <hmoe/backends/cuda/gradient_norm.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/layer.hpp>
#include <hmoe/backends/cuda/losses.cuh>
#include <hmoe/backends/cuda/optimizer.cuh>
#include <hmoe/backends/cuda/own_experts.cuh>
#include <hmoe/backends/cuda/plan.cuh>
#include <hmoe/backends/cuda/router.cuh>
#include <hmoe/backends/cuda/router_backward.cuh>
#include <hmoe/backends/cuda/zero_cost.cuh>

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>

namespace hmoe::backends {

namespace cuda_detail {

/// to[t] = from[t], for the copy of the input that a tape keeps. A block for each row.
template <class S>
__global__ void __launch_bounds__(256)
    copy_rows_kernel(const S* from, std::size_t from_stride, S* to, std::size_t to_stride, index_t cols) {
  const S* const row = from + blockIdx.x * from_stride;
  S* const copy = to + blockIdx.x * to_stride;
  for (index_t c = threadIdx.x; c < cols; c += blockDim.x)
    copy[c] = row[c];
}

/// hmoe's own grouped products: counts of rows stay on the device.
struct grouped_products {
  template <class S, class Bank>
  void operator()(const cuda_context& ctx, const launch_target& target, const plan_arrays& plan, const Bank& bank,
                  std::size_t first_expert, const ffn_forward_arrays<S>& pass, const ffn_piece& piece,
                  std::byte* scratch) const {
    using kind = typename Bank::kind;
    const auto weights = bank.arrays(first_expert);
    ffn_forward<kind::lanes>(ctx.stream(), target, plan, weights, pass, bank.gate(), scratch,
                             {ctx.backend().math, kind::residual, ctx.backend().tiles}, piece);
  }
};
/// Others make whole rows.
template <class Products> inline constexpr bool makes_pieces = std::is_same_v<Products, grouped_products>;

inline void set_zero(cudaStream_t stream, void* memory, std::size_t bytes) {
  require_cuda(cudaMemsetAsync(memory, 0, bytes, stream), "clearing device memory");
}

} // namespace cuda_detail

/// Scratch of the stages, which run one after the other and share it.
template <class Experts, class Router, class S, class W>
std::size_t cuda_layer<Experts, Router, S, W>::scratch_bytes(std::size_t tokens, bool backward) const {
  const auto router = router_on_device();
  const std::size_t routing = backward ? cuda_detail::router_backward_bytes(router, tokens)
                                       : std::max(cuda_detail::router_forward_bytes(router, tokens),
                                                  cuda_detail::build_plan_bytes(tokens, size()));
  return std::max(routing, cuda_detail::ffn_workspace_bytes(size()));
}

template <class Experts, class Router, class S, class W>
std::size_t cuda_layer<Experts, Router, S, W>::workspace_bytes(std::size_t tokens) const {
  cuda_detail::carver inference, recording, back;
  (void)pass_arrays::take(inference, shape_, tokens, max_entries(tokens), false);
  (void)forward_rows::take(inference, shape_, max_entries(tokens), row_floats_);
  (void)inference.take<std::byte>(scratch_bytes(tokens, false));
  if constexpr (trainable) {
    (void)forward_rows::take(recording, shape_, tokens * router_.max_selected(), row_floats_);
    (void)recording.take<std::byte>(scratch_bytes(tokens, false));
    (void)backward_arrays::take(back, shape_, tokens, tokens * router_.max_selected(), row_floats_);
    (void)back.take<std::byte>(scratch_bytes(tokens, true));
  }
  const std::size_t losses = trainable ? cuda_detail::carve_losses(tokens, shape_.routed, nullptr).bytes : 0;
  return std::max({inference.used(), recording.used(), back.used(), losses});
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::forward(const cuda_context& ctx, input x, output y) const {
  cuda_detail::grouped_products products;
  forward_with(ctx, x, y, products);
}

template <class Experts, class Router, class S, class W>
template <class Products>
void cuda_layer<Experts, Router, S, W>::forward_with(const cuda_context& ctx, input x, output y,
                                                     Products& products) const {
  const cuda_detail::device_guard guard = enter(ctx);
  check_shapes(x, y, "y");
  const std::size_t tokens = x.rows();
  if (tokens == 0)
    return;
  const std::size_t most = cuda_detail::row_floats(!cuda_detail::makes_pieces<Products>, row_floats_);
  const auto lay_out = [&](std::byte* block) {
    cuda_detail::carver memory(block);
    const pass_arrays pass = pass_arrays::take(memory, shape_, tokens, max_entries(tokens), false);
    const forward_rows rows = forward_rows::take(memory, shape_, max_entries(tokens), most);
    std::byte* const scratch = memory.take<std::byte>(scratch_bytes(tokens, false));
    return std::tuple(pass, rows, scratch, memory.used());
  };
  const std::size_t bytes = std::get<3>(lay_out(nullptr));
  const auto [pass, rows, scratch, used] = lay_out(ctx.workspace().block_for(bytes, ctx.executor()));
  run_forward(ctx, x, y, pass, rows, scratch, products);
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::forward(const cuda_context& ctx, input x, output y, tape_type& tape) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_shapes(x, y, "y");
  const std::size_t tokens = x.rows();
  require(tape.shape() == shape_, "the tape is of another layer");
  require(tokens <= tape.max_tokens(), "a batch of ", tokens, " tokens for a tape of up to ", tape.max_tokens());
  tape.begin(tokens);
  const pass_arrays& pass = tape.arrays();
  const auto& trace = pass.trace;
  if (tokens == 0) {
    cuda_detail::set_zero(ctx.stream(), pass.plan.offsets, (size() + 1) * sizeof(index_t));
    cuda_detail::set_zero(ctx.stream(), trace.tokens_per_expert, shape_.routed * sizeof(index_t));
    tape.set_complete();
    return;
  }
  cuda_detail::set_zero(ctx.stream(), trace.d_logits, tokens * shape_.routed * sizeof(float));
  cuda_detail::set_zero(ctx.stream(), trace.d_probabilities, tokens * shape_.routed * sizeof(float));
  cuda_detail::launch{"copy_rows", ctx.stream(), static_cast<unsigned>(tokens),
                      256}(cuda_detail::copy_rows_kernel<S>, x.data(), x.stride(), pass.input,
                           pass_arrays::input_stride(d_model()), static_cast<index_t>(d_model()));
  const auto lay_out = [&](std::byte* block) {
    cuda_detail::carver memory(block);
    const forward_rows rows = forward_rows::take(memory, shape_, most_entries(tape, tokens), row_floats_);
    std::byte* const scratch = memory.take<std::byte>(scratch_bytes(tokens, false));
    return std::tuple(rows, scratch, memory.used());
  };
  const std::size_t bytes = std::get<2>(lay_out(nullptr));
  const auto [rows, scratch, used] = lay_out(ctx.workspace().block_for(bytes, ctx.executor()));
  cuda_detail::grouped_products products;
  run_forward(ctx, {pass.input, tokens, d_model(), pass_arrays::input_stride(d_model())}, y, pass, rows, scratch,
              products);
  tape.set_complete();
}

/// x ─ router ─▶ assignment ─ plan ─▶ experts, bank by bank ─ combine ─▶ y, the last two piece by piece of the columns
template <class Experts, class Router, class S, class W>
template <class Products>
void cuda_layer<Experts, Router, S, W>::run_forward(const cuda_context& ctx, input x, output y, const pass_arrays& pass,
                                                    const forward_rows& rows, std::byte* scratch,
                                                    Products& products) const {
  const auto d = static_cast<index_t>(d_model());
  cuda_detail::router_forward(router_on_device(), x.data(), x.stride(), pass.trace, pass.assigned, status_.data(),
                              scratch, ctx.stream());
  cuda_detail::build_plan(pass.assigned, pass.plan, pass.trace.tokens_per_expert, pass.trace.experts, scratch,
                          ctx.stream());
  cuda_detail::row_source<S> read{x.data(), pass.plan.tokens, x.stride()};
  if (shape_.weights_on_input) {
    cuda_detail::weigh_rows<S>(ctx.stream(), pass.plan, {0, pass.plan.experts}, pass.assigned.weights, x.data(),
                               x.stride(), rows.scaled, nullptr, nullptr, d);
    read = {rows.scaled, nullptr, d_model()};
  }
  using part = cuda_detail::ffn_part;
  const bool whole = rows.pieces.columns == d_model();
  if (!whole)
    run_experts(ctx, read, pass, rows, {part::hidden}, scratch, products);
  rows.pieces.for_each([&](const cuda_detail::column_range& columns) {
    run_experts(ctx, read, pass, rows, {whole ? part::all : part::rows, columns}, scratch, products);
    cuda_detail::combine<S>(ctx.stream(), pass.assigned, pass.plan.slots, rows.outputs,
                            shape_.weights_on_input ? nullptr : pass.assigned.weights, nullptr, 0,
                            y.data() + columns.first, y.stride(), columns.count);
  });
}

template <class Experts, class Router, class S, class W>
template <class Products>
void cuda_layer<Experts, Router, S, W>::run_experts(const cuda_context& ctx, const cuda_detail::row_source<S>& x,
                                                    const pass_arrays& pass, const forward_rows& rows,
                                                    const cuda_detail::ffn_piece& piece, std::byte* scratch,
                                                    Products& products) const {
  const auto d = static_cast<index_t>(d_model());
  for_each_bank([&](const auto& bank, std::size_t first) {
    using Bank = std::remove_cvref_t<decltype(bank)>;
    if constexpr (requires { typename Bank::kind; }) {
      const cuda_detail::ffn_forward_arrays<S> arrays{x, rows.activated, pass.projected[Bank::kind::lanes - 1],
                                                      rows.outputs, shape_.hidden_stride};
      if constexpr (cuda_detail::makes_pieces<Products>)
        products(ctx, target(ctx), pass.plan, bank, first, arrays, piece, scratch);
      else
        products(ctx, target(ctx), pass.plan, bank, first, arrays, scratch);
    } else if (!piece.rows()) {
      return; // these have no hidden values
    } else if constexpr (Bank::form == cuda_detail::bank_form::own) {
      cuda_detail::own_experts_forward<typename Bank::functions>(ctx.stream(), target(ctx), bank.rows(pass.plan, first),
                                                                 x, rows.outputs);
    } else {
      cuda_detail::zero_cost_forward<Bank::form>(ctx.stream(), target(ctx), pass.plan, bank.arrays(first), x,
                                                 rows.outputs, pass.mixes, piece.of(d), d);
    }
  });
}

/// The same way in reverse: first the gradient of what experts returned, then that of what they read, then the
/// router's share.
template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::backward(const cuda_context& ctx, tape_type& tape, input dy, output dx,
                                                 cuda_gradients& gradients) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  require(tape.complete(), "backward needs a tape that a forward pass of this layer has filled");
  require(tape.shape() == shape_, "the tape is of another layer");
  require(dy.rows() == tape.tokens(), "dy has ", dy.rows(), " rows, the tape holds ", tape.tokens(), " tokens");
  check_shapes(dy, dx, "dx");
  check_gradients(gradients);
  const std::size_t tokens = dy.rows(), entries = most_entries(tape, tokens);
  if (tokens == 0)
    return;
  const auto lay_out = [&](std::byte* block) {
    cuda_detail::carver memory(block);
    const backward_arrays back = backward_arrays::take(memory, shape_, tokens, entries, row_floats_);
    std::byte* const scratch = memory.take<std::byte>(scratch_bytes(tokens, true));
    return std::tuple(back, scratch, memory.used());
  };
  const std::size_t bytes = std::get<2>(lay_out(nullptr));
  const auto [back, scratch, used] = lay_out(ctx.workspace().block_for(bytes, ctx.executor()));

  const pass_arrays& pass = tape.arrays();
  const auto d = static_cast<index_t>(d_model());
  const std::size_t x_stride = pass_arrays::input_stride(d_model());
  const float* const weights = pass.assigned.weights;
  const cuda_detail::row_source<S> from{dy.data(), pass.plan.tokens, dy.stride()};
  const cuda_detail::expert_range all{0, pass.plan.experts};
  cuda_detail::row_source<S> read{pass.input, pass.plan.tokens, x_stride};
  if (shape_.weights_on_input) {
    cuda_detail::weigh_rows<S>(ctx.stream(), pass.plan, all, weights, pass.input, x_stride, back.scaled, nullptr,
                               nullptr, d);
    read = {back.scaled, nullptr, d_model()};
  }
  using part = cuda_detail::ffn_part;
  const bool whole = back.pieces.columns == d_model();
  run_experts_backward(ctx, read, from, pass, back, gradients, {whole ? part::all : part::hidden}, scratch);
  if (shape_.weights_on_input)
    cuda_detail::weigh_rows<S>(ctx.stream(), pass.plan, all, nullptr, pass.input, x_stride, nullptr, back.d_rows,
                               back.d_weights, d);
  cuda_detail::set_zero(ctx.stream(), back.base, tokens * d_model() * sizeof(float));
  cuda_detail::router_backward(router_on_device(), pass.input, x_stride, pass.trace, pass.assigned, back.d_weights,
                               back.base, d_model(), cuda_detail::view_router_gradients(router_, gradients.router()),
                               scratch, ctx.stream());
  back.pieces.for_each([&](const cuda_detail::column_range& columns) {
    if (!whole)
      run_experts_backward(ctx, read, from, pass, back, gradients, {part::rows, columns}, scratch);
    cuda_detail::combine<S>(ctx.stream(), pass.assigned, pass.plan.slots, back.d_rows,
                            shape_.weights_on_input ? weights : nullptr, back.base + columns.first, d_model(),
                            dx.data() + columns.first, dx.stride(), columns.count);
  });
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::run_experts_backward(
    const cuda_context& ctx, const cuda_detail::row_source<S>& x, const cuda_detail::row_source<S>& dy,
    const pass_arrays& pass, const backward_arrays& back, const cuda_gradients& gradients,
    const cuda_detail::ffn_piece& piece, std::byte* scratch) const {
  const bool on_input = shape_.weights_on_input;
  const cuda_detail::slot_weights weights{on_input ? nullptr : pass.assigned.weights, pass.plan.entries};
  float* const d_weights = on_input ? nullptr : back.d_weights;
  const auto d = static_cast<index_t>(d_model());
  std::size_t b = 0;
  for_each_bank([&](const auto& bank, std::size_t first) {
    using Bank = std::remove_cvref_t<decltype(bank)>;
    if constexpr (requires { typename Bank::kind; }) {
      using kind = typename Bank::kind;
      const cuda_detail::ffn_backward_arrays<S> arrays{x,
                                                       dy,
                                                       weights,
                                                       pass.projected[kind::lanes - 1],
                                                       back.d_projected[kind::lanes - 1],
                                                       back.activated,
                                                       back.dots,
                                                       d_weights,
                                                       back.d_rows,
                                                       shape_.hidden_stride};
      cuda_detail::ffn_backward<kind::lanes, S>(ctx.stream(), target(ctx), pass.plan, bank.arrays(first), arrays,
                                                gradients.bank(b), bank.gate(), scratch,
                                                {ctx.backend().math, kind::residual, ctx.backend().tiles}, piece);
    } else if constexpr (Bank::form == cuda_detail::bank_form::own) {
      const auto rows = bank.rows(pass.plan, first);
      cuda_detail::row_source<S> d_outputs = dy;
      if (!on_input) { // their outputs once more, for the gradients of their weights
        cuda_detail::own_experts_forward<typename Bank::functions>(ctx.stream(), target(ctx), rows, x, back.d_rows);
        const cuda_detail::expert_range mine{static_cast<index_t>(first), rows.experts};
        cuda_detail::weigh_rows<S>(ctx.stream(), pass.plan, mine, weights.weights, dy.rows, dy.stride, back.scaled,
                                   back.d_rows, d_weights, d);
        d_outputs = {back.scaled, nullptr, d_model()};
      }
      cuda_detail::own_experts_backward<typename Bank::functions>(ctx.stream(), rows, x, d_outputs, back.d_rows,
                                                                  gradients.bank(b).in);
    } else {
      if (piece.hidden())
        cuda_detail::zero_cost_backward<Bank::form>(ctx.stream(), target(ctx), pass.plan, bank.arrays(first), x, dy,
                                                    weights, pass.mixes, d_weights, gradients.bank(b), d);
      if (piece.rows())
        cuda_detail::zero_cost_backward_rows<Bank::form>(ctx.stream(), target(ctx), pass.plan, bank.arrays(first), dy,
                                                         weights, pass.mixes, back.d_rows, piece.of(d), d);
    }
    ++b;
  });
}

template <class Experts, class Router, class S, class W>
template <class... Losses>
device_losses<Losses...> cuda_layer<Experts, Router, S, W>::evaluate(const cuda_context& ctx,
                                                                     const objective<Losses...>& aux,
                                                                     tape_type& tape) const
  requires trainable
{
  static_assert(
      routing::makes_probabilities<typename cuda_detail::device_router<Router>::score::function>() ||
          (std::same_as<Losses, losses::z> && ...),
      "hmoe::backends::cuda: evaluate: the router has no probabilities for a loss to read, its scores are the "
      "logits (routing::unscored, as in gpt_oss and llama4): give it the score routing::linear<float, "
      "routing::softmax, true>, which makes the same choices but for rounding");
  static_assert(sizeof...(Losses) <= cuda_detail::most_losses, "hmoe: a tape on the device has room for 32 losses");
  const cuda_detail::device_guard guard = enter(ctx);
  require(tape.shape() == shape_, "the tape is of another layer");
  require(tape.complete(), "an auxiliary loss needs a tape that a forward pass of this layer has filled");
  const pass_arrays& pass = tape.arrays();
  const std::size_t bytes = cuda_detail::evaluate_losses_bytes(aux, tape.tokens(), shape_.routed);
  cuda_detail::evaluate_losses(aux, tape.routing(widths_.data(), widest_), pass.losses,
                               ctx.workspace().block_for(bytes, ctx.executor()), ctx.stream());
  return {std::apply(
              [](const auto&... loss) {
                return std::array<double, sizeof...(Losses)>{static_cast<double>(loss.coefficient)...};
              },
              aux.losses()),
          pass.losses};
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::step(const cuda_context& ctx, const cuda_detail::optimizer_rule& rule,
                                             const cuda_detail::step_rate& rate,
                                             const cuda_detail::optimizer_memory& memory,
                                             const cuda_gradients& gradients)
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_gradients(gradients);
  check_gradients(*memory.first, "the optimiser's moments");
  keep_masters(ctx);
  const auto list = tensors();
  const auto sources = gradient_arrays(gradients), first = gradient_arrays(*memory.first),
             second = memory.second == nullptr ? first : gradient_arrays(*memory.second);
  cuda_detail::begin_optimizer_step(ctx.stream(), rule, rate, memory.progress);
  for (std::size_t i = 0; i < list.size(); ++i)
    cuda_detail::optimize<S>(ctx.stream(), ctx.multiprocessors(), {list[i], sources[i], first[i], second[i]}, rule,
                             memory.progress);
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::keep_masters(const cuda_context& ctx)
  requires trainable
{
  if constexpr (!std::same_as<S, float>) {
    if (keeps_masters_)
      return;
    const cuda_detail::device_guard guard = enter(ctx);
    std::apply([&](auto&... bank) { (..., bank.keep_masters(ctx.executor())); }, banks_);
    for (const auto& tensor : tensors())
      cuda_detail::fill_masters<S>(ctx.stream(), ctx.multiprocessors(), tensor);
    keeps_masters_ = true;
  }
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::add_squared_norm(const cuda_context& ctx, cuda_gradients& gradients,
                                                         device_value<double>& sum) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_gradients(gradients);
  cuda_detail::add_squared_norm(ctx.stream(), gradients.data(), gradients.size(), gradients.norm_partials(),
                                sum.data());
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::scale_to_norm(const cuda_context& ctx, cuda_gradients& gradients,
                                                      const device_value<double>& squares, double max_norm) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_gradients(gradients);
  require(max_norm > 0, "clip_gradient_norm needs max_norm > 0, given is ", max_norm);
  cuda_detail::scale_to_norm(ctx.stream(), cuda_detail::element_blocks(gradients.size(), ctx.multiprocessors()),
                             gradients.data(), gradients.size(), squares.data(), max_norm, status_.data());
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::add_load(const cuda_context& ctx, const tape_type& tape,
                                                 matrix_view<double, device_space> load,
                                                 matrix_view<const double, device_space> flops_per_token) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_counted(tape);
  check_load(load, "the load");
  if (flops_per_token.data() != nullptr)
    check_load(flops_per_token, "flops_per_token");
  cuda_detail::launch{"add_load", ctx.stream(), 1, cuda_detail::loss_threads}(
      cuda_detail::add_load<cuda_detail::loss_threads>, tape.arrays().trace.tokens_per_expert, flops_per_token.data(),
      load.data(), static_cast<index_t>(shape_.routed));
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::update_bias_by_sign(const cuda_context& ctx,
                                                            matrix_view<const double, device_space> load, double rate,
                                                            std::size_t moving)
  requires(trainable && cuda_detail::has_selection_bias<Router>)
{
  const cuda_detail::device_guard guard = enter(ctx);
  const index_t count = moving_experts(load, rate, moving);
  cuda_detail::launch{"move_bias_by_sign", ctx.stream(), 1, cuda_detail::loss_threads}(
      cuda_detail::move_bias_by_sign<cuda_detail::loss_threads>, selection_state<float>(), load.data(), count, rate);
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::update_bias_in_proportion(const cuda_context& ctx,
                                                                  matrix_view<const double, device_space> load,
                                                                  double rate, double share, std::size_t moving)
  requires(trainable && cuda_detail::has_selection_bias<Router>)
{
  const cuda_detail::device_guard guard = enter(ctx);
  const index_t count = moving_experts(load, rate, moving);
  cuda_detail::launch{"move_bias_in_proportion", ctx.stream(), 1, cuda_detail::loss_threads}(
      cuda_detail::move_bias_in_proportion<cuda_detail::loss_threads>, selection_state<float>(), load.data(),
      static_cast<index_t>(shape_.routed), count, rate, share);
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::update_top_p(const cuda_context& ctx, const tape_type& tape,
                                                     cuda_top_p_controller& controller)
  requires(trainable && cuda_detail::selects_top_p<Router>)
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_counted(tape);
  cuda_detail::launch{"move_top_p", ctx.stream(), 1, cuda_detail::loss_threads}(
      cuda_detail::move_top_p<cuda_detail::loss_threads>, tape.arrays().trace.tokens_per_expert,
      static_cast<index_t>(shape_.routed), tape.arrays().trace.tokens, controller.choice(), controller.state(),
      selection_state<double>());
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::add_sparsity(const cuda_context& ctx, const tape_type& tape,
                                                     cuda_sparsity_controller& controller) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  check_counted(tape);
  if (tape.tokens() != 0)
    cuda_detail::launch{"count_sparsity", ctx.stream(),
                        cuda_detail::element_blocks(tape.tokens() * shape_.routed, ctx.multiprocessors()),
                        cuda_detail::loss_threads}(cuda_detail::count_sparsity<cuda_detail::loss_threads>,
                                                   tape.arrays().trace, controller.state());
}

template <class Experts, class Router, class S, class W>
void cuda_layer<Experts, Router, S, W>::update_lambda(const cuda_context& ctx,
                                                      cuda_sparsity_controller& controller) const
  requires trainable
{
  const cuda_detail::device_guard guard = enter(ctx);
  cuda_detail::launch{"move_lambda", ctx.stream(), 1, 1}(cuda_detail::move_lambda<1>, controller.state(),
                                                         controller.wanted_sparsity(), controller.factor());
}

/// Instantiates the kernels of a host layer's device form, see the head of this file.
template <class Layer, class S = float, class W = S> struct cuda_kernels {
  using layer = cuda_layer_of<Layer, S, W>;
  using input = typename layer::input;
  using output = typename layer::output;

  /// What other files of the program call. A call in here might be inlined and leave no function behind; an address
  /// needs one.
  static auto instantiate() {
    const auto inference = static_cast<void (layer::*)(const cuda_context&, input, output) const>(&layer::forward);
    if constexpr (layer::trainable && cuda_detail::has_selection_bias<typename Layer::router_type>) {
      using load = matrix_view<const double, device_space>;
      const auto by_sign =
          static_cast<void (layer::*)(const cuda_context&, load, double, std::size_t)>(&layer::update_bias_by_sign);
      const auto in_proportion = static_cast<void (layer::*)(const cuda_context&, load, double, double, std::size_t)>(
          &layer::update_bias_in_proportion);
      return std::tuple_cat(training(), std::tuple(inference, by_sign, in_proportion));
    } else if constexpr (layer::trainable && cuda_detail::selects_top_p<typename Layer::router_type>) {
      const auto top_p =
          static_cast<void (layer::*)(const cuda_context&, const typename layer::tape_type&, cuda_top_p_controller&)>(
              &layer::update_top_p);
      return std::tuple_cat(training(), std::tuple(inference, top_p));
    } else if constexpr (layer::trainable)
      return std::tuple_cat(training(), std::tuple(inference));
    else
      return std::tuple(inference, &layer::workspace_bytes);
  }
  static auto training()
    requires(layer::trainable)
  {
    return std::tuple(
        &layer::workspace_bytes,
        static_cast<void (layer::*)(const cuda_context&, input, output, typename layer::tape_type&) const>(
            &layer::forward),
        &layer::backward, &layer::step, &layer::keep_masters, &layer::add_squared_norm, &layer::scale_to_norm,
        &layer::add_load, &layer::add_sparsity, &layer::update_lambda);
  }
};

/// The same for an objective that the layer is trained with.
template <class Layer, class Objective, class S = float> struct cuda_objective_kernels;
template <class Layer, class... Losses, class S> struct cuda_objective_kernels<Layer, objective<Losses...>, S> {
  static auto instantiate() { return &cuda_layer_of<Layer, S>::template evaluate<Losses...>; }
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
