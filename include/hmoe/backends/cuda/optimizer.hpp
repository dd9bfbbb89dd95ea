// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/device_value.hpp>
#include <hmoe/backends/cuda/gradients.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/training/adamw.hpp>
#include <hmoe/training/sgd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hmoe::backends {

namespace cuda_detail {

enum class optimizer_kind { adamw, sgd };

/// What an optimiser was made with, the same in every step (see hmoe/training/).
struct optimizer_rule {
  optimizer_kind kind;
  double beta1, beta2; ///< sgd: beta1 is the momentum
  double epsilon, weight_decay;
};

/// Where a step finds its learning rate: in device memory, or (null) as it was queued.
struct step_rate {
  const double* on_device;
  double value;
};

/// On the device: how many steps there were, and the numbers of the present one, which begin_step writes.
struct optimizer_progress {
  std::uint64_t steps;
  float rate, root_scale; ///< η over 1 − β₁ᵗ, and 1/√(1 − β₂ᵗ); sgd: η
  float keep;             ///< 1 − ηλ of AdamW
};

/// What an optimiser keeps on the device: moments in the layout of the gradients, and its progress.
struct optimizer_memory {
  cuda_gradients *first, *second; ///< second: null for sgd
  optimizer_progress* progress;
};

/// f(tensor of the host layer's list of parameters, its gradient) for each, where the gradients are those of `values`.
template <class Layer, class HostLayer, class F>
void for_each_moment(const cuda_context& ctx, const Layer& layer, const cuda_gradients& values, HostLayer& host,
                     const F& f) {
  auto moments = host.make_gradients();
  layer.add_gradients(ctx, values, moments);
  std::vector<parameter<float>> list;
  host.append_parameters(moments, list);
  for (std::size_t i = 0; i < list.size(); ++i)
    f(i, list[i].gradient);
}
/// The reverse: of_tensor(i) is what the moments of tensor i become.
template <class Layer, class HostLayer, class OfTensor>
void set_moments(const cuda_context& ctx, const Layer& layer, cuda_gradients& values, HostLayer& host,
                 const OfTensor& of_tensor) {
  auto moments = host.make_gradients();
  std::vector<parameter<float>> list;
  host.append_parameters(moments, list);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::span<const float> from = of_tensor(i);
    require(from.size() == list[i].gradient.size(), "the optimiser's moments of ", list[i].name, " are ", from.size(),
            " values instead of ", list[i].gradient.size());
    std::ranges::copy(from, list[i].gradient.begin());
  }
  layer.set_gradients(ctx, values, moments);
}

} // namespace cuda_detail

/// training::adamw over the parameters of a device layer, without leaving the device: 8 bytes per parameter. With
/// 16-bit weights the layer also keeps their values in float (cuda_layer::keep_masters), 4 bytes per parameter. The
/// number of steps is on the device too, so that a step in a CUDA graph counts each time that the graph is launched.
class cuda_adamw {
public:
  template <class Layer>
  cuda_adamw(const cuda_context& ctx, const training::adamw_options& options, Layer& layer)
      : options_(options), first_(layer.make_gradients(ctx)), second_(layer.make_gradients(ctx)),
        progress_(ctx.executor()) {
    require(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
            "AdamW needs betas in [0, 1), given are ", options.beta1, " and ", options.beta2);
    require(options.epsilon > 0, "AdamW needs epsilon > 0, given is ", options.epsilon);
    require(std::isfinite(options.weight_decay) && options.weight_decay >= 0,
            "AdamW needs a finite weight_decay >= 0, given is ", options.weight_decay);
    layer.keep_masters(ctx);
  }
  /// One update with learning rate η, in the order of the stream. In a CUDA graph every launch takes this η.
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients, double learning_rate) {
    require(std::isfinite(learning_rate), "AdamW with a learning rate of ", learning_rate, ": it must be finite");
    layer.step(ctx, rule(), {nullptr, learning_rate}, memory(), gradients);
  }
  /// The same with the η that stands in device memory when the step runs.
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients,
            const device_value<double>& learning_rate) {
    layer.step(ctx, rule(), {learning_rate.data(), 0}, memory(), gradients);
  }

  /// The number of steps so far; waits for the stream.
  [[nodiscard]] std::uint64_t steps(const cuda_context& ctx) const { return progress_.read(ctx.executor()).steps; }
  /// Writes moments and number of steps into the host's optimiser, made for the parameters of `host`, a host layer of
  /// the same shape; with cuda_layer::download that is all that a checkpoint needs. Waits for the stream.
  template <class Layer, class HostLayer>
  void download(const cuda_context& ctx, const Layer& layer, HostLayer& host, training::adamw<float>& to) const {
    cuda_detail::for_each_moment(ctx, layer, first_, host, [&](std::size_t i, auto moments) {
      std::ranges::copy(moments, to.first_moment(i).begin());
    });
    cuda_detail::for_each_moment(ctx, layer, second_, host, [&](std::size_t i, auto moments) {
      std::ranges::copy(moments, to.second_moment(i).begin());
    });
    to.set_steps(steps(ctx));
  }
  /// Goes on from a checkpoint: the weights of `host` to the layer, and moments and number of steps from the host's
  /// optimiser. Every later step gives the bits that it would have given without the interruption.
  template <class Layer, class HostLayer>
  void resume(const cuda_context& ctx, Layer& layer, HostLayer& host, training::adamw<float>& from) {
    cuda_detail::set_moments(ctx, layer, first_, host, [&](std::size_t i) { return from.first_moment(i); });
    cuda_detail::set_moments(ctx, layer, second_, host, [&](std::size_t i) { return from.second_moment(i); });
    progress_.set(ctx.executor(), {from.steps(), 0, 0, 0});
    layer.upload(ctx, host);
  }

private:
  [[nodiscard]] cuda_detail::optimizer_rule rule() const noexcept {
    return {cuda_detail::optimizer_kind::adamw, options_.beta1, options_.beta2, options_.epsilon,
            options_.weight_decay};
  }
  [[nodiscard]] cuda_detail::optimizer_memory memory() noexcept { return {&first_, &second_, progress_.data()}; }

  training::adamw_options options_;
  cuda_gradients first_, second_;
  device_value<cuda_detail::optimizer_progress> progress_;
};

/// training::sgd over the parameters of a device layer: 4 bytes per parameter, and masters as for cuda_adamw.
class cuda_sgd {
public:
  template <class Layer>
  cuda_sgd(const cuda_context& ctx, const training::sgd_options& options, Layer& layer)
      : options_(options), velocity_(layer.make_gradients(ctx)), progress_(ctx.executor()) {
    require(options.momentum >= 0 && options.momentum < 1, "SGD needs a momentum in [0, 1), given is ",
            options.momentum);
    require(std::isfinite(options.weight_decay) && options.weight_decay >= 0,
            "SGD needs a finite weight_decay >= 0, given is ", options.weight_decay);
    layer.keep_masters(ctx);
  }
  /// One update with learning rate η, in the order of the stream; see cuda_adamw::step.
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients, double learning_rate) {
    require(std::isfinite(learning_rate), "SGD with a learning rate of ", learning_rate, ": it must be finite");
    layer.step(ctx, rule(), {nullptr, learning_rate}, memory(), gradients);
  }
  template <class Layer>
  void step(const cuda_context& ctx, Layer& layer, const cuda_gradients& gradients,
            const device_value<double>& learning_rate) {
    layer.step(ctx, rule(), {learning_rate.data(), 0}, memory(), gradients);
  }
  /// As cuda_adamw has them.
  template <class Layer, class HostLayer>
  void download(const cuda_context& ctx, const Layer& layer, HostLayer& host, training::sgd<float>& to) const {
    cuda_detail::for_each_moment(ctx, layer, velocity_, host, [&](std::size_t i, auto moments) {
      std::ranges::copy(moments, to.velocity(i).begin());
    });
  }
  template <class Layer, class HostLayer>
  void resume(const cuda_context& ctx, Layer& layer, HostLayer& host, training::sgd<float>& from) {
    cuda_detail::set_moments(ctx, layer, velocity_, host, [&](std::size_t i) { return from.velocity(i); });
    layer.upload(ctx, host);
  }

private:
  [[nodiscard]] cuda_detail::optimizer_rule rule() const noexcept {
    return {cuda_detail::optimizer_kind::sgd, options_.momentum, 0, 0, options_.weight_decay};
  }
  [[nodiscard]] cuda_detail::optimizer_memory memory() noexcept { return {&velocity_, nullptr, progress_.data()}; }

  training::sgd_options options_;
  cuda_gradients velocity_;
  device_value<cuda_detail::optimizer_progress> progress_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
