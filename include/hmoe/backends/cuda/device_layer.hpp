// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_bank.hpp>
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

#include <concepts>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

/// Which host layers have a form on the device, said in words at the first thing that does not.
namespace hmoe::backends::cuda_detail {

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

  /// device_bank<Bank, W>(stream, bank) for each.
  template <class W>
  [[nodiscard]] static on_device<W> copy(const executors::cuda_stream& stream, const expert_set<Banks...>& host) {
    return [&]<std::size_t... B>(std::index_sequence<B...>) {
      return on_device<W>{device_bank<Banks, W>(stream, host.template bank<B>())...};
    }(std::index_sequence_for<Banks...>{});
  }
};

} // namespace hmoe::backends::cuda_detail
