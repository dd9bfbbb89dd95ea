// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/controllers.hpp>
#include <hmoe/backends/cuda/device_layer.hpp>
#include <hmoe/backends/cuda/gradients.hpp>
#include <hmoe/backends/cuda/losses.hpp>
#include <hmoe/backends/cuda/optimizer.hpp>
#include <hmoe/backends/cuda/tape.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/overlap.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace hmoe::backends {

/// A moe_layer on the device, made by copy_to: the same experts, router and results. S: what tokens, hidden values and
/// the experts' matrices are stored in (float, bfloat16 or half; sums, router and gradients are float). W: what the
/// matrices are stored in, S or, for inference with 16-bit S, a block of hmoe/core/quantized_block.hpp. Every pass only
/// queues work on the context's stream; nothing waits for the device but check, the reads, and a workspace that has to
/// grow. The definitions are in hmoe/backends/cuda/layer.cuh, which one .cu of the program instantiates:
///   template struct hmoe::backends::cuda_kernels<host_layer, S, W>;
template <class Experts, class Router, class S, class W = S> class cuda_layer {
  static_assert(std::same_as<typename Experts::value_type, float>,
                "hmoe::backends::cuda: a layer over double has no form on the device: take float, whose products the "
                "device computes in float, tf32, bfloat16 or half");
  static_assert(cuda_detail::device_scalar<S>,
                "hmoe::backends::cuda: S is none of float, hmoe::bfloat16 and hmoe::half: tokens, hidden values and "
                "weights on the device are stored in one of these");
  static_assert(std::same_as<W, S> || (cuda_detail::weight_block<W> && !std::same_as<S, float>),
                "hmoe::backends::cuda: W is neither S nor, with S = hmoe::bfloat16 or hmoe::half, a block of "
                "hmoe/core/quantized_block.hpp, such as hmoe::q8_block");
  using banks = cuda_detail::banks_of<Experts>;
  using pass_arrays = cuda_detail::pass_arrays<S>;
  using forward_rows = cuda_detail::forward_rows<S>;
  using backward_arrays = cuda_detail::backward_arrays<S>;
  static constexpr std::size_t bank_count = std::tuple_size_v<typename banks::template on_device<W>>;

public:
  using value_type = S;
  using weight_type = W;
  using tape_type = cuda_tape<S>;
  using input = matrix_view<const S, device_space>;
  using output = matrix_view<S, device_space>;
  /// Quantised weights are for inference.
  static constexpr bool trainable = std::same_as<W, S>;

  template <cuda_detail::host_layer Layer>
  cuda_layer(const cuda_context& ctx, const Layer& host)
      : device_(ctx.device()), banks_(banks::template copy<W>(ctx.executor(), host.experts())), router_(host.router()) {
    require(host.experts().numbered_in_order(),
            "on the device experts are numbered bank after bank: give expert_set no "
            "expert_ids");
    complete(ctx);
  }
  /// Of a router and a source of weights for each bank (load_to).
  template <class... Sources>
  cuda_layer(const cuda_context& ctx, const Router& router, const Sources&... sources)
    requires(sizeof...(Sources) == bank_count && (cuda_detail::any_bank_source<Sources> && ...))
      : device_(ctx.device()), banks_(banks::template load<W>(ctx.executor(), sources...)), router_(router) {
    complete(ctx);
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return shape_.d; }
  [[nodiscard]] std::size_t size() const noexcept { return shape_.experts; }
  /// The device that has the layer; passes run in contexts of it.
  [[nodiscard]] int device() const noexcept { return device_; }
  /// Memory of the parameters, masters included.
  [[nodiscard]] std::size_t bytes() const noexcept {
    std::size_t sum = router_block_.size();
    for_each_bank([&](const auto& bank, std::size_t) { sum += bank.bytes(); });
    return sum;
  }

  /// How the matrices of bank B of two-layer experts lie: sizes, and of each expert offsets and strides, in elements of
  /// W, or with quantised weights in cells (weight_cell.hpp).
  template <std::size_t B> [[nodiscard]] const cuda_detail::ffn_layout& weight_layout() const noexcept {
    return std::get<B>(banks_).layout();
  }
  /// From now on the matrices of bank B are those that the caller has on the layer's device:
  /// weight_layout<B>().in_size() and out_size() elements, both at a multiple of 16 bytes. For experts of one width h,
  /// with d and h multiples of 16 bytes, these are contiguous arrays [experts, lanes · h, d] (gate rows before up rows)
  /// and [experts, d, h]. They are read as they are, and must outlive the layer; upload and optimiser steps write them.
  template <std::size_t B> void use_weights(cuda_detail::stored_weight<W>* in, cuda_detail::stored_weight<W>* out) {
    require(!keeps_masters_, "the layer keeps masters of its weights already: take the caller's memory before that");
    std::get<B>(banks_).borrow(in, out, device_);
  }

  /// With 16-bit weights: keeps the matrices also in float (masters), of which the stored ones are the rounding, 4
  /// bytes per weight. They begin with what is stored; upload and download then take and give them, so that nothing is
  /// lost. Optimisers call it, and update the masters. Does nothing where S is float or masters are kept already.
  void keep_masters(const cuda_context& ctx)
    requires trainable;
  /// Takes the weights of a host layer of the same shape, in the order of the stream, bit for bit where masters are
  /// kept; all are checked before the first is written. To go on from a checkpoint see cuda_adamw::resume.
  template <cuda_detail::host_layer Layer> void upload(const cuda_context& ctx, const Layer& host) {
    const cuda_detail::device_guard guard = enter(ctx);
    require(host.router().size() == router_.size() && host.router().d_model() == router_.d_model(),
            "the router on the device chooses among ", router_.size(), " experts by ", router_.d_model(),
            " values, the given one among ", host.router().size(), " by ", host.router().d_model());
    upload_banks(ctx, host.experts(), std::make_index_sequence<bank_count>{});
    router_ = host.router();
    upload_router(ctx);
  }
  /// Writes the weights into a host layer of the same shape, the masters where they are kept; waits for the stream.
  template <cuda_detail::host_layer Layer>
  void download(const cuda_context& ctx, Layer& host) const
    requires trainable
  {
    download_banks(ctx, host.experts(), std::make_index_sequence<bank_count>{});
    std::vector<std::byte> block(router_block_.size());
    router_block_.read(ctx.executor(), block);
    ctx.synchronize();
    cuda_detail::unpack_router(block.data(), host.router());
  }

  /// The most entries (pairs of token and expert) that an inference pass has room for; 0: as many as its tokens can
  /// have, tokens × max_selected. A batch that needs more leaves its last tokens without experts, and check says so.
  void set_max_entries(std::size_t entries) noexcept { max_entries_ = entries; }
  [[nodiscard]] std::size_t max_entries(std::size_t tokens) const {
    const std::size_t most = tokens * router_.max_selected();
    return max_entries_ == 0 ? most : std::min(most, max_entries_);
  }

  /// Bytes (at first 512 MiB) for the rows of d floats that a pass has for each entry: outputs of experts, and
  /// gradients of what they read. A pass makes as many columns of them at a time as fit, at least 128, and the result
  /// has the same bits. Fewer columns at a time need less workspace and read hidden values more often. Layers with
  /// experts of a user (device_expert), and the gradients of weights on the input side, need whole rows.
  void set_row_bytes(std::size_t bytes) noexcept { row_floats_ = bytes / sizeof(float); }

  /// A tape for batches of up to max_tokens, with room for max_entries pairs of token and expert (0: as many as there
  /// can be).
  [[nodiscard]] tape_type make_tape(std::size_t max_tokens, std::size_t max_entries = 0) const {
    static_assert(trainable,
                  "hmoe::backends::cuda: quantised weights are for inference: copy the layer with copy_to<S>, "
                  "whose weights are of S, to train it");
    const std::size_t most = max_tokens * router_.max_selected();
    check_entries(most);
    const cuda_detail::device_guard guard(device_);
    return tape_type(shape_, max_tokens, max_entries == 0 ? most : std::min(most, max_entries));
  }
  /// Bytes of such a tape, and one in the caller's memory on the layer's device (aligned to 256 bytes), which must
  /// outlive it.
  [[nodiscard]] std::size_t tape_bytes(std::size_t max_tokens, std::size_t max_entries = 0) const {
    const std::size_t most = max_tokens * router_.max_selected();
    return tape_type::bytes_for(shape_, max_tokens, max_entries == 0 ? most : std::min(most, max_entries));
  }
  [[nodiscard]] tape_type make_tape_in(std::byte* memory, std::size_t bytes, std::size_t max_tokens,
                                       std::size_t max_entries = 0) const
    requires trainable
  {
    const std::size_t most = max_tokens * router_.max_selected();
    check_entries(most);
    return tape_type(shape_, max_tokens, max_entries == 0 ? most : std::min(most, max_entries),
                     device_buffer<std::byte>::borrowed(memory, bytes, device_));
  }
  /// Zeros in the shape of the parameters.
  [[nodiscard]] cuda_gradients make_gradients(const cuda_context& ctx) const {
    static_assert(trainable,
                  "hmoe::backends::cuda: quantised weights are for inference: copy the layer with copy_to<S>, "
                  "whose weights are of S, to train it");
    std::vector<std::array<std::size_t, 4>> sizes;
    for_each_bank([&](const auto& bank, std::size_t) { sizes.push_back(bank.gradient_sizes()); });
    return cuda_gradients(ctx.executor(), sizes, router_block_.size());
  }
  /// The tensors of a host layer's gradients += those on the device; waits for the stream.
  template <class Gradients>
  void add_gradients(const cuda_context& ctx, const cuda_gradients& from, Gradients& host) const
    requires trainable
  {
    add_bank_gradients(ctx, from, host.experts, std::make_index_sequence<bank_count>{});
    cuda_detail::add_router_gradients(from.read_router(ctx.executor()).data(), host.router);
  }

  /// The reverse: `to` becomes the tensors of a host layer's gradients, as for moments of an optimiser.
  template <class Gradients>
  void set_gradients(const cuda_context& ctx, cuda_gradients& to, Gradients& host) const
    requires trainable
  {
    check_gradients(to);
    set_bank_gradients(ctx, to, host.experts, std::make_index_sequence<bank_count>{});
    to.write_router(ctx.executor(), cuda_detail::router_gradients_block(host.router));
  }

  /// Inference: y[T×d] = layer(x[T×d]). x and y must not overlap.
  void forward(const cuda_context& ctx, input x, output y) const;
  /// The same with other products than hmoe's own, to compare with: `products` is called for each bank of two-layer
  /// experts as in hmoe/backends/cuda/cublas.cuh. It makes whole rows, whatever set_row_bytes says, and so may need
  /// more than workspace_bytes. For files that include layer.cuh.
  template <class Products> void forward_with(const cuda_context& ctx, input x, output y, Products& products) const;
  /// Training: as above, and the tape keeps what backward needs.
  void forward(const cuda_context& ctx, input x, output y, tape_type& tape) const
    requires trainable;
  /// Evaluates the losses of an objective on what forward left in the tape, and adds their gradients to its trace,
  /// where backward finds them; once per forward pass. The values stay on the device until they are read. Throws what
  /// objective::evaluate throws.
  template <class... Losses>
  device_losses<Losses...> evaluate(const cuda_context& ctx, const objective<Losses...>& aux, tape_type& tape) const
    requires trainable;
  /// The backward pass from dy = ∂L/∂y: dx = ∂L/∂x, gradients += ∂L/∂parameters; includes what losses left in the
  /// tape's trace. dx must not overlap dy.
  void backward(const cuda_context& ctx, tape_type& tape, input dy, output dx, cuda_gradients& gradients) const
    requires trainable;
  /// Bytes of workspace that suffice for any pass over up to `tokens` tokens, forward or backward, and for losses.
  [[nodiscard]] std::size_t workspace_bytes(std::size_t tokens) const;
  /// One step of an optimiser over all parameters.
  void step(const cuda_context& ctx, const cuda_detail::optimizer_rule& rule, const cuda_detail::step_rate& rate,
            const cuda_detail::optimizer_memory& memory, const cuda_gradients& gradients)
    requires trainable;

  // Between passes, in the order of the stream and without the host; all can be captured in CUDA graphs.

  /// sum += Σ g² of the gradients, padding included, which is 0: for the norm over several layers.
  void add_squared_norm(const cuda_context& ctx, cuda_gradients& gradients, device_value<double>& sum) const
    requires trainable;
  /// Scales the gradients by max_norm / √squares where √squares is above max_norm. Where it is not finite the gradients
  /// become 0, and check throws.
  void scale_to_norm(const cuda_context& ctx, cuda_gradients& gradients, const device_value<double>& squares,
                     double max_norm) const
    requires trainable;
  /// training::clip_gradient_norm over the gradients of this layer; gradients.read_norm(ctx) tells the norm from
  /// before.
  void clip_gradient_norm(const cuda_context& ctx, cuda_gradients& gradients, double max_norm) const
    requires trainable
  {
    gradients.squared_norm().set_zero(ctx.executor());
    add_squared_norm(ctx, gradients, gradients.squared_norm());
    scale_to_norm(ctx, gradients, gradients.squared_norm(), max_norm);
  }

  /// The load that biases follow, on the device: a number for each routed expert, zeros.
  [[nodiscard]] device_matrix<double> make_load(const cuda_context& ctx) const {
    device_matrix<double> load;
    load.resize_for_overwrite(ctx.executor(), 1, shape_.routed);
    load.set_zero(ctx.executor());
    return load;
  }
  /// load += tokens per expert of the pass in the tape, each times the expert's FLOPs per token [1×N] where they are
  /// given (routing::load_in_tokens, load_in_flops). Loads of several devices are added up by whoever has them.
  void add_load(const cuda_context& ctx, const tape_type& tape, matrix_view<double, device_space> load,
                matrix_view<const double, device_space> flops_per_token = {}) const
    requires trainable;
  /// routing::update_bias_by_sign and update_bias_in_proportion on the router's bias, for routers whose selection is
  /// routing::biased. The loads stay.
  void update_bias_by_sign(const cuda_context& ctx, matrix_view<const double, device_space> load, double rate,
                           std::size_t moving = routing::all_experts)
    requires(trainable && cuda_detail::has_selection_bias<Router>);
  void update_bias_in_proportion(const cuda_context& ctx, matrix_view<const double, device_space> load, double rate,
                                 double share, std::size_t moving = routing::all_experts)
    requires(trainable && cuda_detail::has_selection_bias<Router>);
  /// Moves the p of a router with routing::top_p, given the pass in the tape.
  void update_top_p(const cuda_context& ctx, const tape_type& tape, cuda_top_p_controller& controller)
    requires(trainable && cuda_detail::selects_top_p<Router>);
  /// Never valid: these say in words what the router lacks.
  template <class... Arguments>
    requires(!cuda_detail::has_selection_bias<Router>)
  void update_bias_by_sign(const cuda_context&, Arguments&&...) {
    explain_bias();
  }
  template <class... Arguments>
    requires(!cuda_detail::has_selection_bias<Router>)
  void update_bias_in_proportion(const cuda_context&, Arguments&&...) {
    explain_bias();
  }
  template <class... Arguments>
    requires(!cuda_detail::selects_top_p<Router>)
  void update_top_p(const cuda_context&, Arguments&&...) {
    static_assert(
        cuda_detail::selects_top_p<Router>,
        "hmoe::backends::cuda: update_top_p: the router of this layer has no p to move: give it the selection "
        "routing::top_p");
  }
  /// Counts the active pairs of the pass in the tape, and ends a step (losses::sparsity_controller).
  void add_sparsity(const cuda_context& ctx, const tape_type& tape, cuda_sparsity_controller& controller) const
    requires trainable;
  void update_lambda(const cuda_context& ctx, cuda_sparsity_controller& controller) const
    requires trainable;

  /// Waits for the stream and throws when a pass since the last call had more entries than room for them, a selection
  /// that returned too many, unknown or repeated experts, gradients whose norm was not finite, or (unless the router
  /// has non_finite::propagate) a logit that was not finite.
  void check(const cuda_context& ctx) const {
    cuda_detail::device_status status[1];
    status_.read(ctx.executor(), status);
    ctx.synchronize();
    if (status[0].entries_needed == 0 && status[0].non_finite_logit == 0 && status[0].invalid_choice == 0 &&
        status[0].non_finite_gradient == 0)
      return;
    status_.set_zero(ctx.executor());
    require(status[0].entries_needed == 0, "a pass on the device had ", status[0].entries_needed,
            " pairs of token and expert, more than its tape or set_max_entries has room for; the last tokens of the "
            "batch were left without experts");
    require(status[0].invalid_choice == 0, "the selection returned too many, unknown or repeated experts for token ",
            status[0].invalid_choice - 1, ", which was left without routed experts");
    require(status[0].non_finite_logit == 0 || router_.on_non_finite() == routing::non_finite::propagate,
            "the router's logits of token ", status[0].non_finite_logit - 1, " are not all finite");
    require(status[0].non_finite_gradient == 0,
            "the norm of gradients that were clipped was not finite: training has diverged; they were set to 0");
  }

  /// The trained tensors, in the order of cuda_gradients' arrays; the router's last.
  [[nodiscard]] std::vector<cuda_detail::device_tensor<S>> tensors() const
    requires trainable
  {
    std::vector<cuda_detail::device_tensor<S>> list;
    for_each_bank([&](const auto& bank, std::size_t) { bank.append_tensors(list); });
    const auto layout = cuda_detail::device_router<Router>::layout_of(router_);
    cuda_detail::for_each_trained_tensor(router_, [&](std::size_t offset, auto values) {
      const bool is_bias = offset == layout.bias && offset != layout.select;
      list.push_back({nullptr, reinterpret_cast<float*>(router_block_.data() + offset), nullptr, values.size(),
                      offset == 0 || !is_bias});
    });
    return list;
  }

private:
  /// What is the same for all layers, once there are banks and a router.
  void complete(const cuda_context& ctx) {
    std::size_t widest = 0, experts = 0;
    std::vector<index_t> widths;
    for_each_bank([&](const auto& bank, std::size_t first) {
      experts = first + bank.size();
      widths.resize(experts);
      if constexpr (requires { bank.layout(); }) {
        widest = std::max(widest, bank.layout().widest());
        for (std::size_t e = 0; e < bank.size(); ++e)
          widths[first + e] = static_cast<index_t>(bank.layout()[e].width);
        require(bank.layout().d_model() == router_.d_model(), "a bank has d_model ", bank.layout().d_model(),
                ", the router ", router_.d_model());
      } else if constexpr (requires { bank.width(first); }) {
        for (std::size_t e = 0; e < bank.size(); ++e)
          widths[first + e] = static_cast<index_t>(bank.width(e));
      }
    });
    require(experts == router_.size(), "the router is for ", router_.size(), " experts, the banks have ", experts);
    require(router_.routed() <= 512, "the router chooses among ", router_.routed(),
            " experts, on the device up to 512");
    for (std::size_t e = 0; e < router_.routed(); ++e)
      widest_ = std::max(widest_, widths[e]);
    shape_ = {router_.d_model(),         experts,          router_.routed(), cuda_detail::ffn_hidden_stride<S>(widest),
              banks::one_lane,           banks::two_lanes, banks::constants, banks::own,
              router_.weights_on_input()};
    widths_.assign(ctx.executor(), widths);
    status_.resize_for_overwrite(ctx.executor(), 1);
    status_.set_zero(ctx.executor());
    upload_router(ctx);
  }

  /// f(bank, id of its first expert)
  template <class F> void for_each_bank(F&& f) const {
    std::size_t first = 0;
    std::apply([&](const auto&... bank) { (..., (f(bank, first), first += bank.size())); }, banks_);
  }
  template <std::size_t... B>
  void upload_banks(const cuda_context& ctx, const Experts& host, std::index_sequence<B...>) {
    (..., std::get<B>(banks_).check(host.template bank<B>()));
    (..., std::get<B>(banks_).write(ctx.executor(), host.template bank<B>()));
  }
  template <std::size_t... B>
  void download_banks(const cuda_context& ctx, Experts& host, std::index_sequence<B...>) const {
    (..., std::get<B>(banks_).download(ctx.executor(), host.template bank<B>()));
  }
  template <std::size_t... B>
  void add_bank_gradients(const cuda_context& ctx, const cuda_gradients& from, Experts& host,
                          std::index_sequence<B...>) const {
    (..., std::get<B>(banks_).add_gradients(from.read_bank(ctx.executor(), B), host.template bank<B>()));
  }
  template <std::size_t... B>
  void set_bank_gradients(const cuda_context& ctx, cuda_gradients& to, Experts& host, std::index_sequence<B...>) const {
    (..., to.write_bank(ctx.executor(), B, std::get<B>(banks_).gradients_of(host.template bank<B>())));
  }
  /// The layer's device is current while the guard lives.
  [[nodiscard]] cuda_detail::device_guard enter(const cuda_context& ctx) const {
    require(ctx.device() == device_, "the layer lies on device ", device_, ", the context is of device ", ctx.device());
    return cuda_detail::device_guard(device_);
  }
  void upload_router(const cuda_context& ctx) {
    std::vector<std::byte> block(cuda_detail::router_bytes(router_));
    cuda_detail::pack_router(router_, block.data());
    router_block_.assign(ctx.executor(), block);
  }

  void check_gradients(const cuda_gradients& gradients, std::string_view name = "the gradients") const {
    std::size_t b = 0;
    for_each_bank([&](const auto& bank, std::size_t) {
      require(b < gradients.bank_count() && gradients.sizes(b) == bank.gradient_sizes(), name,
              " are not those of this layer: bank ", b, " has another shape");
      ++b;
    });
    require(gradients.router_bytes() == router_block_.size(), name, " are not those of this layer: its router has ",
            router_block_.size(), " bytes of parameters, not ", gradients.router_bytes());
  }
  /// Where the gradient of each tensor lies, in the order of tensors().
  [[nodiscard]] std::vector<float*> gradient_arrays(const cuda_gradients& gradients) const {
    std::vector<float*> list;
    std::size_t b = 0;
    for_each_bank([&](const auto& bank, std::size_t) {
      const auto arrays = gradients.bank(b++);
      if constexpr (requires { bank.append_gradients(arrays, list); })
        bank.append_gradients(arrays, list);
      else
        for (float* array : {arrays.in, arrays.out, arrays.in_bias, arrays.out_bias})
          if (array != nullptr)
            list.push_back(array);
    });
    cuda_detail::for_each_trained_tensor(router_, [&](std::size_t offset, auto) {
      list.push_back(reinterpret_cast<float*>(gradients.router() + offset));
    });
    return list;
  }
  static void check_entries(std::size_t entries) {
    require(entries < no_index, entries, " pairs of token and expert in one batch are too many for 32-bit ids");
  }
  /// Where the bias of routing::biased lies, or the p of routing::top_p: what the selection has begins with it.
  template <class T> [[nodiscard]] T* selection_state() const {
    return reinterpret_cast<T*>(router_block_.data() + cuda_detail::device_router<Router>::layout_of(router_).select);
  }
  /// Checks a load, and returns how many of the first experts have a bias that moves.
  [[nodiscard]] index_t moving_experts(matrix_view<const double, device_space> load, double rate,
                                       std::size_t moving) const {
    check_load(load, "the load");
    require(std::isfinite(rate), "a selection bias cannot move at a rate of ", rate, ": it must be finite");
    require(moving == routing::all_experts || moving <= shape_.routed, "the bias of ", moving, " of ", shape_.routed,
            " experts should move");
    return static_cast<index_t>(std::min(moving, shape_.routed));
  }
  static void explain_bias() {
    static_assert(cuda_detail::has_selection_bias<Router>,
                  "hmoe::backends::cuda: the router of this layer has no selection bias to move: give it the selection "
                  "routing::biased, as in routing::presets::deepseek_v3");
  }
  void check_counted(const tape_type& tape) const {
    require(tape.shape() == shape_, "the tape is of another layer");
    require(tape.complete(), "counts need a tape that a forward pass of this layer has filled");
  }
  void check_load(matrix_view<const double, device_space> load, std::string_view name) const {
    require(load.rows() == 1 && load.cols() == shape_.routed, name, " is ", load.rows(), " x ", load.cols(),
            ", needed is 1 x ", shape_.routed);
  }
  void check_shapes(input in, output out, std::string_view out_name) const {
    require(in.cols() == d_model(), "a token has ", in.cols(), " values, the layer's d_model is ", d_model());
    require(in.rows() == out.rows() && in.cols() == out.cols(), out_name, " is ", out.rows(), " x ", out.cols(),
            ", needed is ", in.rows(), " x ", in.cols());
    check_output(in, out, out_name);
    check_entries(in.rows() * router_.max_selected());
  }

  /// Entries that a pass over a tape can have.
  [[nodiscard]] std::size_t most_entries(const tape_type& tape, std::size_t tokens) const {
    return std::min(tape.max_entries(), tokens * router_.max_selected());
  }

  // Defined in layer.cuh.
  template <class Products>
  void run_forward(const cuda_context& ctx, input x, output y, const pass_arrays& pass, const forward_rows& rows,
                   std::byte* scratch, Products& products) const;
  template <class Products>
  void run_experts(const cuda_context& ctx, const cuda_detail::row_source<S>& x, const pass_arrays& pass,
                   const forward_rows& rows, const cuda_detail::ffn_piece& piece, std::byte* scratch,
                   Products& products) const;
  void run_experts_backward(const cuda_context& ctx, const cuda_detail::row_source<S>& x,
                            const cuda_detail::row_source<S>& dy, const pass_arrays& pass, const backward_arrays& back,
                            const cuda_gradients& gradients, const cuda_detail::ffn_piece& piece,
                            std::byte* scratch) const;
  [[nodiscard]] std::size_t scratch_bytes(std::size_t tokens, bool backward) const;
  [[nodiscard]] auto router_on_device() const { return cuda_detail::view_router(router_, router_block_.data()); }
  [[nodiscard]] static cuda_detail::launch_target target(const cuda_context& ctx) {
    return {ctx.multiprocessors(), ctx.compute_capability()};
  }

  int device_;
  typename banks::template on_device<W> banks_;
  Router router_; ///< its policies and shape; the parameters that passes use are on the device
  cuda_detail::pass_shape shape_{};
  std::size_t max_entries_ = 0;
  std::size_t row_floats_ = std::size_t{1} << 27U;
  bool keeps_masters_ = false;
  device_buffer<std::byte> router_block_;
  device_buffer<index_t> widths_;
  index_t widest_ = 0; ///< of the routed experts
  mutable device_buffer<cuda_detail::device_status> status_;
};

/// The device form of a host layer's type.
template <cuda_detail::host_layer Layer, class S = float, class W = S>
using cuda_layer_of = cuda_layer<typename Layer::experts_type, typename Layer::router_type, S, W>;

/// A layer on the device whose experts' weights come from sources (experts::weight_source), one for each bank, such as
/// io::stored_experts over a mapped file, 64 rows at a time: the host never has more of them in float. A bank whose
/// gate has numbers (a limit) takes bank_source{source, gate}.
///   auto on_gpu = load_to<layer_type, bfloat16>(gpu, router, io::stored_experts<2>(…));
template <cuda_detail::host_layer Layer, class S = float, class W = S, class... Sources>
[[nodiscard]] cuda_layer_of<Layer, S, W> load_to(const cuda_context& ctx, const typename Layer::router_type& router,
                                                 const Sources&... sources) {
  static_assert(
      (cuda_detail::any_bank_source<Sources> && ...),
      "hmoe::backends::load_to: an element of Sources is no experts::weight_source, and no bank_source around "
      "one: it has lanes, size(), d_model(), width(e), has_biases(), read and read_bias");
  return cuda_layer_of<Layer, S, W>(ctx, router, sources...);
}

/// Copies a layer over float to the device, in the order of the context's stream:
///   auto on_gpu = copy_to<bfloat16>(gpu, layer);      copy_to<bfloat16, q8_block>(gpu, layer) for inference
template <class S = float, class W = S, cuda_detail::host_layer Layer>
[[nodiscard]] cuda_layer_of<Layer, S, W> copy_to(const cuda_context& ctx, const Layer& layer) {
  static_assert(
      cuda_detail::dropless<typename Layer::dispatch_type>,
      "hmoe::backends::copy_to: Dispatch drops tokens (it has a capacity) or is a strategy of your own: on the "
      "device every token reaches its experts, give the layer one of automatic, sorted, scattered, per_token, "
      "blocked, looped and dense");
  return cuda_layer_of<Layer, S, W>(ctx, layer);
}

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
