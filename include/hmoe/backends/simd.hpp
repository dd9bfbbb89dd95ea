// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<xsimd/xsimd.hpp>)
#error "hmoe/backends/simd.hpp needs xsimd 8.1 or later: install it (libxsimd-dev) and link hmoe::simd"
#endif

#if defined(__AVX512F__)
#include <hmoe/interop/intrinsics.hpp> // before xsimd
#endif

#include <hmoe/backends/simd/activations.hpp>
#include <hmoe/backends/simd/channel_formats.hpp>
#include <hmoe/backends/simd/ffn_backward.hpp>
#include <hmoe/backends/simd/ffn_forward.hpp>
#include <hmoe/backends/simd/fp8_format.hpp>
#include <hmoe/backends/simd/optimizers.hpp>
#include <hmoe/backends/simd/packed_bank.hpp>
#include <hmoe/backends/simd/products.hpp>
#include <hmoe/backends/simd/quantized_formats.hpp>
#include <hmoe/backends/simd/routing.hpp>
#include <hmoe/backends/simd/rows.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <xsimd/xsimd.hpp>

#include <concepts>
#include <cstddef>
#include <memory_resource>
#include <type_traits>
#include <utility>

namespace hmoe::backends {

/// Products with the SIMD registers of Arch, by default the best instruction set that the compiler's flags allow.
/// Every element of a product is one chain of multiply-adds over ascending k in the matrices' own type: the bits of a
/// token's output depend on nothing but the token, whatever the batch, the threads or the dispatch. Activations (see
/// vector_form), probabilities and choices of a router, the sums over a token's experts and AdamW run in vectors too.
/// Allocates nothing.
template <class Arch = xsimd::default_arch>
struct simd : simd_detail::activations<Arch>,
              simd_detail::routing_rows<Arch>,
              simd_detail::row_operations<Arch>,
              simd_detail::optimizers<Arch> {
  static constexpr bool observes_stages = true;

  template <class A, class B, class C>
  static void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, transposed, false, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, plain, false, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<plain, plain, true, Arch>(a, b, c);
  }
  template <class A, class B, class C>
  static void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    using enum simd_detail::layout;
    simd_detail::multiply<transposed, plain, true, Arch>(a, b, c);
  }

  /// All experts of a feed-forward bank at once, float or double, weights as they are; where they are so small that
  /// packing takes longer than it saves, expert after expert by the products above. A class derived from such a bank is
  /// computed so unless it declares forward or backward anew.
  template <class Bank> [[nodiscard]] static auto takes_bank(const Bank& bank) noexcept {
    if constexpr (simd_detail::feed_forward<Bank>)
      return simd_detail::worth_packing(bank);
    else
      return std::false_type{};
  }
  template <execution_context Context, simd_detail::feed_forward Bank>
  static void forward_bank(const Context& ctx, const Bank& bank,
                           vector_view<const expert_rows<typename Bank::value_type>> rows) {
    simd_detail::ffn_forward<simd_detail::feed_forward_t<Bank>, Arch>::run(ctx, bank, rows);
  }
  /// What nobody needs may have no memory: dx of the rows, tensors of the gradients. It is not computed then, and the
  /// bits of the rest stay.
  template <execution_context Context, simd_detail::feed_forward Bank>
  static void backward_bank(const Context& ctx, const Bank& bank,
                            vector_view<const expert_rows<typename Bank::value_type>> rows, Bank& gradients,
                            sums_from from = sums_from::gradients) {
    simd_detail::ffn_backward<simd_detail::feed_forward_t<Bank>, Arch>::run(ctx, bank, rows, gradients, from);
  }

  /// Rows may scatter: they are gathered while they are packed.
  template <simd_detail::feed_forward Bank> [[nodiscard]] static std::true_type gathers(const Bank&) noexcept {
    return {};
  }

  /// Takes from a dry workspace what these passes take at most for rows within the limits.
  template <execution_context Context, simd_detail::feed_forward Bank>
  static void lay_out_forward_bank(const Context& dry, const Bank& bank, const row_limits& limits) {
    simd_detail::ffn_forward<simd_detail::feed_forward_t<Bank>, Arch>::lay_out(dry, bank, limits);
  }
  template <execution_context Context, simd_detail::feed_forward Bank>
  static void lay_out_backward_bank(const Context& dry, const Bank& bank, const row_limits& limits) {
    simd_detail::ffn_backward<simd_detail::feed_forward_t<Bank>, Arch>::lay_out(dry, bank, limits);
  }

  /// The types that pack makes of a glu_bank with that gate or activation, and of an mlp_bank: to name those of a layer
  /// that is mapped (io/packed_checkpoint.hpp).
  template <class Format, class Gate>
  using packed_glu = packed_bank<Format, typename experts::detail::as_gating<Gate>::type, 2, Arch>;
  template <class Format, class Activation> using packed_mlp = packed_bank<Format, Activation, 1, Arch>;

  /// The inference form of a bank: the weights as Format stores them (hmoe::backends::formats), in the order that the
  /// kernels read. The bank given is not needed afterwards. hmoe::error where a weight is not finite or beyond
  /// Format::largest_weight.
  template <class Format = formats::f32, simd_detail::has_feed_forward_base Bank>
  [[nodiscard]] static auto pack(const Bank& bank) {
    constexpr bool of_float = std::same_as<typename Bank::value_type, float>;
    static_assert(of_float,
                  "hmoe::backends::simd::pack: Bank has the value_type double, and packed weights are computed "
                  "in float: give a bank of float, or run this one as it is");
    static_assert(
        simd_detail::feed_forward<Bank>,
        "hmoe::backends::simd::pack: Bank is derived from a glu_bank or an mlp_bank and declares forward or "
        "backward anew, which packed weights would not compute: pack the bank that it is derived from, or run "
        "it as it is");
    if constexpr (of_float)
      return pack_weights<Format>(bank);
  }
  /// The same from weights that lie elsewhere, a mapped file for instance, by a few rows at a time: while packing there
  /// are never more floats in memory than those of a panel. Two matrices that read the token make a GLU with that gate
  /// (or a gate of that activation), one an MLP with that activation. The packed weights are in memory of the given
  /// resource. Blocks that the format has as well are taken over without a change of value (experts::weight_source).
  template <class Format = formats::f32, experts::weight_source Source, class Gate>
  [[nodiscard]] static auto pack(const Source& source, Gate gate,
                                 std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
    static_assert(Source::lanes == 1 || Source::lanes == 2,
                  "hmoe::backends::simd::pack: Source::lanes, the matrices that read a token, is neither 1 nor 2");
    if constexpr (Source::lanes == 2) {
      using result = packed_glu<Format, Gate>;
      if constexpr (std::same_as<typename result::gate_type, Gate>)
        return result(source, std::move(gate), memory);
      else
        return result(source, typename result::gate_type{}, memory);
    } else {
      return packed_mlp<Format, Gate>(source, std::move(gate), memory);
    }
  }
  /// All banks of a set that have an inference form; the others stay as they are:
  ///   moe_layer fast{simd<>::pack<formats::bf16>(layer.experts()), layer.router(), dispatch::scattered{}};
  template <class Format = formats::f32, class... Banks>
  [[nodiscard]] static auto pack(const expert_set<Banks...>& experts) {
    return [&]<std::size_t... B>(std::index_sequence<B...>) {
      return expert_set(experts.ids(), pack_or_copy<Format>(experts.template bank<B>())...);
    }(std::index_sequence_for<Banks...>{});
  }

  /// A layer for inference: the same router and dispatch, with packed experts. It has no parameters to train.
  /// hmoe::error where all weights of its experts are 0: nobody has initialised it, or loaded weights.
  template <class Format = formats::f32, class Layer>
    requires requires(const Layer& layer) { layer.with_experts(layer.experts()); }
  [[nodiscard]] static auto pack(const Layer& layer) {
    require_weights(layer.experts());
    return layer.with_experts(pack<Format>(layer.experts()));
  }

private:
  template <class Experts> static void require_weights(const Experts& experts) {
    if constexpr (Experts::trainable) {
      std::size_t count = 0;
      bool found = false; // NaN is not 0: the formats refuse it
      experts.visit_parameters([&](const parameter_info& info, auto values) {
        count += info.decay ? values.size() : 0; // experts of width 0 may have biases of 0
        for (std::size_t r = 0; r < values.rows() && !found; ++r)
          for (const auto value : values.row(r))
            found = found || value != 0;
      });
      require(found || count == 0, "simd::pack: all ", count,
              " weights of the layer's experts are 0, as those of a layer that was never initialised: call "
              "layer.initialize(seed), or load weights, and pack it then");
    }
  }
  template <class Format, class Gate>
  [[nodiscard]] static auto pack_weights(const experts::glu_bank<float, Gate>& bank) {
    return pack<Format>(experts::weights_in_memory(bank.weights()), bank.gate_function());
  }
  template <class Format, class Activation>
  [[nodiscard]] static auto pack_weights(const experts::mlp_bank<float, Activation>& bank) {
    return pack<Format>(experts::weights_in_memory(bank.weights()), Activation{});
  }
  template <class Format, class Bank> [[nodiscard]] static auto pack_or_copy(const Bank& bank) {
    if constexpr (simd_detail::feed_forward<Bank> && std::same_as<typename Bank::value_type, float>)
      return pack<Format>(bank);
    else if constexpr (requires { bank.with_stored([](const auto& stored) { return stored; }); })
      return bank.with_stored([](const auto& stored) { return pack_or_copy<Format>(stored); });
    else
      return bank;
  }
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
