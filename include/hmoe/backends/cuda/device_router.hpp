// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_policies.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/routing/router.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

/// A host router on the device: one block of parameters, and the policies over it as an argument of kernels.
///   std::vector<std::byte> staging(router_bytes(r));  pack_router(r, staging.data());  // … copy to `device`
///   auto view = view_router(r, device);               // for router_forward, router_backward
/// Gradients are a block of the same size and layout: view_router_gradients, add_router_gradients.
namespace hmoe::backends::cuda_detail {

/// Trivially copyable; what the pointers point to is on the device.
template <class Function, class Selection, class Weighting> struct router_view {
  const float* weight;      ///< [experts × d]
  const float* bias;        ///< [experts], or null
  const float* shared_gate; ///< [shared × d], or null: shared experts have weight 1
  index_t d;
  index_t experts; ///< that compete for tokens: columns of the trace
  index_t shared;  ///< that every token gets; their ids come behind
  index_t most;    ///< the most experts that a token selects, shared ones not counted
  Function function;
  Selection select;
  Weighting weighting;

  /// The most entries that `tokens` tokens can have in an assignment.
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t most_entries(std::size_t tokens) const noexcept {
    return tokens * (std::size_t{most} + shared);
  }
};

/// Where router_backward adds to; null where the router has no such parameter.
struct router_gradient_arrays {
  float *weight, *bias, *shared_gate;
};

template <class Router> struct device_router {
  static_assert(
      sizeof(Router) == 0,
      "hmoe::backends::cuda: Router is not routing::router<Score, Selection, Weighting, Shared>: only routers "
      "put together of these policies run on the device");
};
template <class Score, class Selection, class Weighting, class Shared>
struct device_router<routing::router<Score, Selection, Weighting, Shared>> {
  static_assert(std::is_trivially_copyable_v<Weighting>,
                "hmoe::backends::cuda: Weighting is not trivially copyable, so it cannot be an argument of a kernel: "
                "keep plain values in it, and mark forward and backward HMOE_HOST_DEVICE");
  static_assert(!hmoe::detail::wants_weighting_scratch<Weighting>,
                "hmoe::backends::cuda: Weighting wants scratch (it has scratch_size): kernels give it none; take one "
                "without, such as routing::renormalized or scaled, or route on the host");
  static_assert(!hmoe::detail::reads_weighting_row<Weighting>,
                "hmoe::backends::cuda: Weighting reads token and noise (it has reads_row), which kernels do not have: "
                "route on the host");
  using host_type = routing::router<Score, Selection, Weighting, Shared>;
  using score = device_score<Score>;
  using select = device_selection<Selection>;
  using view_type = router_view<typename score::function, typename select::type, Weighting>;
  static constexpr bool gated = device_shared<Shared>::gated;

  /// Byte offsets of the parameters, multiples of 16, in the order in which the host router visits them.
  struct layout {
    std::size_t weight, bias, select, shared_gate, bytes;
  };
  [[nodiscard]] static layout layout_of(const host_type& router) noexcept {
    layout at{};
    at.bias = round_to_16(router.routed() * router.d_model() * sizeof(float));
    at.select = at.bias + (score::biased ? round_to_16(router.routed() * sizeof(float)) : 0);
    at.shared_gate = at.select + select::bytes(router.selection_policy());
    at.bytes = at.shared_gate;
    if constexpr (gated)
      at.bytes += round_to_16(router.shared_policy().gate().size() * sizeof(float));
    return at;
  }
};

/// Whether a router's selection has a bias that is moved between steps, and whether it is top_p.
template <class Router> inline constexpr bool has_selection_bias = false;
template <class Score, class Inner, class Weighting, class Shared>
inline constexpr bool has_selection_bias<routing::router<Score, routing::biased<float, Inner>, Weighting, Shared>> =
    true;
template <class Router> inline constexpr bool selects_top_p = false;
template <class Score, class Weighting, class Shared>
inline constexpr bool selects_top_p<routing::router<Score, routing::top_p, Weighting, Shared>> = true;

template <class Router> using router_view_t = typename device_router<Router>::view_type;

/// Size of the block of parameters.
template <class Router> [[nodiscard]] std::size_t router_bytes(const Router& router) noexcept {
  return device_router<Router>::layout_of(router).bytes;
}

/// f(byte offset, values) for the tensors that are trained: weight, bias, shared gate. R: Router or const Router.
template <class R, class F> void for_each_trained_tensor(R& router, F&& f) {
  using form = device_router<std::remove_const_t<R>>;
  const auto at = form::layout_of(router);
  const auto weight = router.score().weight();
  f(at.weight, vector_view(weight.data(), weight.size()));
  if constexpr (form::score::biased)
    f(at.bias, router.score().bias());
  if constexpr (form::gated) {
    const auto gate = router.shared_policy().gate();
    f(at.shared_gate, vector_view(gate.data(), gate.size()));
  }
}

/// Writes router_bytes bytes: the parameters as they lie on the device.
template <class Router> void pack_router(const Router& router, std::byte* block) {
  using form = device_router<Router>;
  const auto at = form::layout_of(router);
  std::fill_n(block, at.bytes, std::byte{});
  for_each_trained_tensor(router, [&](std::size_t offset, vector_view<const float> values) {
    std::memcpy(block + offset, values.data(), values.size() * sizeof(float));
  });
  form::select::pack(router.selection_policy(), block + at.select);
}
/// The reverse: parameters from a block that came back from the device.
template <class Router> void unpack_router(const std::byte* block, Router& router) {
  using form = device_router<Router>;
  for_each_trained_tensor(router, [&](std::size_t offset, vector_view<float> values) {
    std::memcpy(values.data(), block + offset, values.size() * sizeof(float));
  });
  form::select::unpack(block + form::layout_of(router).select, router.selection_policy());
}
/// gradients += a block of gradients that came back from the device. `gradients` is a router of the same shape.
template <class Router> void add_router_gradients(const std::byte* block, Router& gradients) {
  for_each_trained_tensor(gradients, [&](std::size_t offset, vector_view<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      float value;
      std::memcpy(&value, block + offset + i * sizeof(float), sizeof(float));
      values[i] += value;
    }
  });
}

/// The reverse: a block of gradients for the device.
template <class Router> [[nodiscard]] std::vector<std::byte> router_gradients_block(Router& gradients) {
  std::vector<std::byte> block(router_bytes(gradients));
  for_each_trained_tensor(gradients, [&](std::size_t offset, vector_view<float> values) {
    std::memcpy(block.data() + offset, values.data(), values.size() * sizeof(float));
  });
  return block;
}

/// The router as kernels take it, over a block on the device (aligned to 16 bytes).
template <class Router> [[nodiscard]] router_view_t<Router> view_router(const Router& router, const std::byte* device) {
  using form = device_router<Router>;
  const auto at = form::layout_of(router);
  const auto floats = [&](bool there, std::size_t offset) {
    return there ? reinterpret_cast<const float*>(device + offset) : nullptr;
  };
  const std::size_t shared = router.size() - router.routed();
  return {floats(true, at.weight),
          floats(form::score::biased, at.bias),
          floats(form::gated, at.shared_gate),
          static_cast<index_t>(router.d_model()),
          static_cast<index_t>(router.routed()),
          static_cast<index_t>(shared),
          static_cast<index_t>(router.max_selected() - shared),
          router.score().function(),
          form::select::view(router.selection_policy(), device + at.select),
          router.weighting_policy()};
}
/// The trained parts of a block of gradients of that router on the device.
template <class Router>
[[nodiscard]] router_gradient_arrays view_router_gradients(const Router& router, std::byte* device) {
  using form = device_router<Router>;
  const auto at = form::layout_of(router);
  const auto floats = [&](bool there, std::size_t offset) {
    return there ? reinterpret_cast<float*>(device + offset) : nullptr;
  };
  return {floats(true, at.weight), floats(form::score::biased, at.bias), floats(form::gated, at.shared_gate)};
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
