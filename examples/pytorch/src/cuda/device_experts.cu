// SPDX-License-Identifier: MIT
// The kernels of hmoe._cuda.
#include <hmoe/backends/cuda/experts_pass.cuh>
#include <hmoe/core/error.hpp>

#include "../steps.hpp"
#include "device_experts.hpp"

#include <cmath>
#include <utility>

namespace hmoe::python {

/// The activation of an MLP.
struct chosen_activation_on_device {
  step which = step::silu;

  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T z) const noexcept {
    return with_activation(which, [&]<class A>(A) { return A::value(z); });
  }
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T derivative(T z) const noexcept {
    return with_activation(which, [&]<class A>(A) { return A::derivative(z); });
  }
};

template <std::size_t Lanes, class S, class Gate> class device_experts_of final : public device_experts {
  using experts_type = backends::cuda_experts<Lanes, S, Gate>;
  using input = typename experts_type::input;
  using output = typename experts_type::output;

public:
  device_experts_of(backends::experts_layout layout, Gate gate) : device_experts(std::move(layout)), gate_(gate) {}

  std::size_t hidden_values(std::size_t tokens, std::size_t choices) const override {
    return experts_type::hidden_values(layout(), tokens, choices);
  }
  std::size_t forward_bytes(std::size_t tokens, std::size_t choices, bool keeps) const override {
    return experts_type::forward_bytes(layout(), tokens, choices, keeps);
  }
  std::size_t backward_bytes(std::size_t tokens, std::size_t choices) const override {
    return experts_type::backward_bytes(layout(), tokens, choices);
  }

  void forward(const device_place& place, const device_weights& weights, const device_batch& in, void* y,
               const device_kept& kept) const override {
    const output to(static_cast<S*>(y), in.tokens, layout().d_model());
    run(place, [&](const backends::cuda_context& gpu) {
      const experts_type experts = made(place, weights);
      if (kept.outputs == nullptr)
        experts.forward(gpu, rows(in.x, in), chosen(in), to);
      else
        experts.forward(gpu, rows(in.x, in), chosen(in), to, kept_of(kept));
    });
  }
  void backward(const device_place& place, const device_weights& weights, const device_batch& in, const void* dy,
                const device_kept& kept, void* dx, float* d_weights, const device_gradients& gradients) const override {
    run(place, [&](const backends::cuda_context& gpu) {
      made(place, weights)
          .backward(gpu, rows(in.x, in), chosen(in), rows(dy, in), kept_of(kept),
                    output(static_cast<S*>(dx), in.tokens, layout().d_model()),
                    matrix_view<float, device_space>(d_weights, in.tokens, in.choices),
                    {gradients.in, gradients.out, gradients.in_bias, gradients.out_bias});
    });
  }

private:
  template <class F> static void run(const device_place& place, const F& f) {
    backends::device_workspace memory(place.workspace, place.workspace_bytes, place.device);
    const backends::cuda math{place.tf32 ? backends::float_math::tf32 : backends::float_math::f32};
    f(backends::cuda_context(math, executors::cuda_stream(place.stream, place.device), memory));
  }
  [[nodiscard]] experts_type made(const device_place& place, const device_weights& weights) const {
    return {layout(),
            place.table,
            {static_cast<const S*>(weights.in), static_cast<const S*>(weights.out), weights.in_bias, weights.out_bias},
            gate_};
  }
  [[nodiscard]] input rows(const void* values, const device_batch& in) const {
    return {static_cast<const S*>(values), in.tokens, layout().d_model()};
  }
  [[nodiscard]] static backends::device_choices chosen(const device_batch& in) {
    return {{in.ids, in.tokens, in.choices}, {in.weights, in.tokens, in.choices}};
  }
  [[nodiscard]] static typename experts_type::kept_type kept_of(const device_kept& kept) {
    return {static_cast<S*>(kept.hidden), kept.outputs};
  }

  Gate gate_;
};

namespace {

template <std::size_t Lanes, class S, class Gate>
std::unique_ptr<device_experts> experts_with(backends::experts_layout layout, Gate gate) {
  return std::make_unique<device_experts_of<Lanes, S, Gate>>(std::move(layout), gate);
}

} // namespace

std::unique_ptr<device_experts> device_experts::make(std::size_t d_model, const std::vector<std::size_t>& widths,
                                                     const options& how) {
  require(how.type != scalar::float64,
          "experts of float64 on a GPU: there are kernels for float32 and bfloat16: convert them, or move them to the "
          "CPU");
  backends::experts_layout layout(d_model, widths, how.gated ? 2 : 1);
  const bool narrow = how.type == scalar::bfloat16;
  if (!how.gated) {
    const chosen_activation_on_device activation{how.function};
    return narrow ? experts_with<1, bfloat16>(std::move(layout), activation)
                  : experts_with<1, float>(std::move(layout), activation);
  }
  // The gate of most models has kernels of its own in bfloat16, with quicker exponentials; the others share a choice.
  if (narrow && how.function == step::silu && how.limit == std::numeric_limits<double>::infinity())
    return experts_with<2, bfloat16>(std::move(layout), experts::gated<experts::silu>{});
  const chosen_gate gate{how.function, how.limit, how.alpha};
  return narrow ? experts_with<2, bfloat16>(std::move(layout), gate) : experts_with<2, float>(std::move(layout), gate);
}

} // namespace hmoe::python
