// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/no_shared.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>

/// The policies of a router in the form in which kernels take them: trivially copyable, with pointers to what they own.
namespace hmoe::backends::cuda_detail {

/// A selection on the device. `type` is what kernels call, `bytes` how much device memory it wants (a multiple of 16),
/// `pack` what to copy there and `view` the policy over it. Most selections are their own form and want none.
template <class Selection> struct device_selection {
  static_assert(
      selection<Selection, float>,
      "hmoe::backends::cuda: Selection does not choose for one token of float probabilities: selections over "
      "a whole batch (expert_choice, balanced, sinkhorn, random_hash, replay) do not run on the device; take one "
      "over a token's row, such as routing::top_k or routing::top_p, or route on the host");
  static_assert(std::is_trivially_copyable_v<Selection>,
                "hmoe::backends::cuda: Selection is not trivially copyable, so it cannot be an argument of a kernel: "
                "keep plain values in it, and mark its operator() HMOE_HOST_DEVICE");
  using type = Selection;
  [[nodiscard]] static std::size_t bytes(const Selection&) noexcept { return 0; }
  static void pack(const Selection&, std::byte*) noexcept {}
  static void unpack(const std::byte*, Selection&) noexcept {}
  [[nodiscard]] static type view(const Selection& host, const std::byte*) { return host; }
};

[[nodiscard]] constexpr std::size_t round_to_16(std::size_t bytes) noexcept { return (bytes + 15) / 16 * 16; }

/// routing::top_p with the p that stands on the device when the kernel runs (cuda_layer::update_top_p moves it).
struct device_top_p {
  const double* p;

  HMOE_HOST_DEVICE std::size_t operator()(vector_view<const float> row, vector_view<index_t> chosen) const noexcept {
    return routing::top_p(*p)(row, chosen);
  }
};
template <> struct device_selection<routing::top_p> {
  using type = device_top_p;
  [[nodiscard]] static std::size_t bytes(const routing::top_p&) noexcept { return 16; }
  static void pack(const routing::top_p& host, std::byte* to) noexcept { std::memcpy(to, &host.p, sizeof host.p); }
  static void unpack(const std::byte* from, routing::top_p& host) noexcept {
    std::memcpy(&host.p, from, sizeof host.p);
  }
  [[nodiscard]] static type view(const routing::top_p&, const std::byte* at) {
    return {reinterpret_cast<const double*>(at)};
  }
};

/// The bias, then what the inner selection has.
template <class Inner> struct device_selection<routing::biased<float, Inner>> {
  using host_type = routing::biased<float, Inner>;
  using inner = device_selection<Inner>;
  using type = routing::biased_view<float, typename inner::type>;
  [[nodiscard]] static std::size_t bytes(const host_type& host) noexcept {
    return round_to_16(host.bias().size() * sizeof(float)) + inner::bytes(host.inner());
  }
  static void pack(const host_type& host, std::byte* to) noexcept {
    const auto bias = host.bias();
    std::memcpy(to, bias.data(), bias.size() * sizeof(float));
    inner::pack(host.inner(), to + round_to_16(bias.size() * sizeof(float)));
  }
  static void unpack(const std::byte* from, host_type& host) noexcept {
    std::memcpy(host.bias().data(), from, host.bias().size() * sizeof(float));
  }
  [[nodiscard]] static type view(const host_type& host, const std::byte* at) {
    const std::size_t experts = host.bias().size();
    return {{reinterpret_cast<const float*>(at), experts},
            inner::view(host.inner(), at + round_to_16(experts * sizeof(float)))};
  }
};

/// The costs.
template <> struct device_selection<routing::cost_aware_top_p> {
  using host_type = routing::cost_aware_top_p;
  using type = routing::cost_aware_top_p_view;
  [[nodiscard]] static std::size_t bytes(const host_type& host) noexcept {
    return round_to_16(host.view().costs.size() * sizeof(double));
  }
  static void pack(const host_type& host, std::byte* to) noexcept {
    const auto costs = host.view().costs;
    std::memcpy(to, costs.data(), costs.size() * sizeof(double));
  }
  static void unpack(const std::byte*, host_type&) noexcept {}
  [[nodiscard]] static type view(const host_type& host, const std::byte* at) {
    type result = host.view();
    result.costs = {reinterpret_cast<const double*>(at), result.costs.size()};
    return result;
  }
};

/// Whether a score is routing::linear<float, …>, and what kernels need of it.
template <class Score> struct device_score {
  static_assert(sizeof(Score) == 0,
                "hmoe::backends::cuda: Score is not routing::linear<float, Function, Bias>: only that one has kernels; "
                "scores around another (noisy, jittered, cosine, residual, …) route on the host");
};
template <class Function, bool Bias> struct device_score<routing::linear<float, Function, Bias>> {
  static_assert(std::is_trivially_copyable_v<Function>,
                "hmoe::backends::cuda: Function of routing::linear is not trivially copyable, so it cannot be an "
                "argument of a kernel: keep plain values in it, and mark forward and backward HMOE_HOST_DEVICE");
  using function = Function;
  static constexpr bool biased = Bias;
};

/// Whether kernels know a policy of shared experts, and whether it has gates.
template <class Shared> struct device_shared {
  static_assert(sizeof(Shared) == 0, "hmoe::backends::cuda: Shared is none of routing::no_shared, routing::always_on "
                                     "and routing::sigmoid_gated<float>: only these have kernels");
};
template <> struct device_shared<routing::no_shared> {
  static constexpr bool gated = false;
};
template <> struct device_shared<routing::always_on> {
  static constexpr bool gated = false;
};
template <> struct device_shared<routing::sigmoid_gated<float>> {
  static constexpr bool gated = true;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
