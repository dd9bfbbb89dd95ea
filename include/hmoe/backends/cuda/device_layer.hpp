// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_bank.hpp>
#include <hmoe/backends/cuda/device_own.hpp>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/tape.hpp>
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <concepts>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

/// Which host layers have a form on the device, said in words at the first thing that does not.
namespace hmoe::backends {

/// A source of weights for a bank whose gate has numbers, such as experts::clamped.
template <experts::weight_source Source, class Gate> struct bank_source {
  bank_source(const Source& from, const Gate& with) : weights(&from), gate(with) {}
  const Source* weights;
  Gate gate;
};

} // namespace hmoe::backends

namespace hmoe::backends::cuda_detail {

template <class S> inline constexpr bool is_bank_source = false;
template <class Source, class Gate> inline constexpr bool is_bank_source<bank_source<Source, Gate>> = true;
template <class S>
concept any_bank_source = experts::weight_source<S> || is_bank_source<S>;

template <class L>
concept host_layer = requires(const L& layer) {
  typename L::experts_type;
  typename L::router_type;
  typename L::dispatch_type;
  layer.experts();
  layer.router();
};

/// The device plans in its own way; what it computes is what these compute.
template <class Dispatch> inline constexpr bool dropless = false;
template <class Order> inline constexpr bool dropless<dispatch::sorted<capacity::no_capacity, Order>> = true;
template <> inline constexpr bool dropless<dispatch::scattered> = true;
template <> inline constexpr bool dropless<dispatch::per_token> = true;
template <std::size_t Rows> inline constexpr bool dropless<dispatch::blocked<Rows>> = true;
template <> inline constexpr bool dropless<dispatch::looped> = true;
template <> inline constexpr bool dropless<dispatch::automatic> = true;
template <> inline constexpr bool dropless<dispatch::dense> = true;

/// How many projections of the first matrix a kind has: 2, 1, or 0 where it has none.
template <class Bank> consteval std::size_t lanes_of() {
  if constexpr (device_kind<Bank>::form == bank_form::ffn)
    return device_kind<Bank>::lanes;
  else
    return 0;
}

/// The banks of an expert_set on the device.
template <class Experts> struct banks_of;
template <class... Banks> struct banks_of<expert_set<Banks...>> {
  template <class W> using on_device = std::tuple<device_bank<Banks, W>...>;
  static constexpr bool one_lane = ((lanes_of<Banks>() == 1) || ...);
  static constexpr bool two_lanes = ((lanes_of<Banks>() == 2) || ...);
  static constexpr bool constants = ((device_kind<Banks>::form == bank_form::constant) || ...);
  static constexpr bool own = ((device_kind<Banks>::form == bank_form::own) || ...);

  /// device_bank<Bank, W>(stream, bank) for each.
  template <class W>
  [[nodiscard]] static on_device<W> copy(const executors::cuda_stream& stream, const expert_set<Banks...>& host) {
    return [&]<std::size_t... B>(std::index_sequence<B...>) {
      return on_device<W>{device_bank<Banks, W>(stream, host.template bank<B>())...};
    }(std::index_sequence_for<Banks...>{});
  }
  /// device_bank<Bank, W>(stream, source, gate) for each.
  template <class W, class... Sources>
  [[nodiscard]] static on_device<W> load(const executors::cuda_stream& stream, const Sources&... sources) {
    static_assert(((device_kind<Banks>::form == bank_form::ffn) && ...),
                  "hmoe::backends::load_to: a bank without matrix products has no source of weights: copy a layer that "
                  "has such banks with copy_to");
    return on_device<W>{load_bank<Banks, W>(stream, sources)...};
  }

private:
  template <class Bank, class W, class Source>
  [[nodiscard]] static device_bank<Bank, W> load_bank(const executors::cuda_stream& stream, const Source& source) {
    if constexpr (experts::weight_source<Source>)
      return device_bank<Bank, W>(stream, source, typename device_kind<Bank>::gate_type{});
    else
      return device_bank<Bank, W>(stream, *source.weights, source.gate);
  }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
