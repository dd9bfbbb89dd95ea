// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_ffn.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/zero.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

/// The kinds of experts that have a form on the device.
namespace hmoe::backends::cuda_detail {

/// The experts of one bank without matrix products among those of the layer, and the parameters of constant ones (null
/// for the other kinds).
struct zero_cost_arrays {
  index_t first, count;
  const float *mix, *constant; ///< [count × 2d], [count × d]
};

enum class bank_form { ffn, identity, zero, constant, own };

/// What kernels need to know of a kind: `form`, and of a two-layer kind Lanes, the gate (an hmoe::gating, or with one
/// lane an hmoe::activation) and whether the expert is added to its input.
template <class Bank> struct device_kind {
  static_assert(sizeof(Bank) == 0,
                "hmoe::backends::cuda: an element of Banks has no form on the device: glu_bank, mlp_bank, "
                "gpt_oss_glu_bank, low_rank_bank, identity_bank, zero_bank and constant_bank over float have one; "
                "any_expert and banks of your own run on the host; an expert of your own does where you specialise "
                "hmoe::backends::device_expert for it");
};

template <class Gate> struct device_kind<experts::glu_bank<float, Gate>> {
  static constexpr bank_form form = bank_form::ffn;
  static constexpr std::size_t lanes = 2;
  static constexpr bool residual = false;
  using gate_type = typename experts::glu_bank<float, Gate>::gate_type;
  static_assert(std::is_trivially_copyable_v<gate_type>,
                "hmoe::backends::cuda: the Gate of a glu_bank is not trivially copyable, so it cannot be an argument "
                "of a kernel: keep plain values in it, and mark value and backward HMOE_HOST_DEVICE");
  static gate_type gate(const experts::glu_bank<float, Gate>& bank) { return bank.gate_function(); }
};
template <>
struct device_kind<experts::gpt_oss_glu_bank<float>> : device_kind<experts::glu_bank<float, experts::gpt_oss_gate>> {};
template <class Activation> struct device_kind<experts::mlp_bank<float, Activation>> {
  static constexpr bank_form form = bank_form::ffn;
  static constexpr std::size_t lanes = 1;
  static constexpr bool residual = false;
  using gate_type = Activation;
  static gate_type gate(const experts::mlp_bank<float, Activation>&) { return {}; }
};
template <> struct device_kind<experts::low_rank_bank<float>> {
  static constexpr bank_form form = bank_form::ffn;
  static constexpr std::size_t lanes = 1;
  static constexpr bool residual = true;
  using gate_type = experts::linear;
  static gate_type gate(const experts::low_rank_bank<float>&) { return {}; }
};
template <> struct device_kind<experts::identity_bank<float>> {
  static constexpr bank_form form = bank_form::identity;
};
template <> struct device_kind<experts::zero_bank<float>> {
  static constexpr bank_form form = bank_form::zero;
};
template <> struct device_kind<experts::constant_bank<float>> {
  static constexpr bank_form form = bank_form::constant;
};

/// Parameters and shape of one bank on the device. W: element type of the matrices of two-layer kinds.
template <class Bank, class W, bank_form = device_kind<Bank>::form> class device_bank;

template <class Bank, class W>
class device_bank<Bank, W, bank_form::ffn> : public device_ffn<device_kind<Bank>::lanes, W> {
  using base = device_ffn<device_kind<Bank>::lanes, W>;

public:
  using kind = device_kind<Bank>;
  device_bank(const executors::cuda_stream& stream, const Bank& host)
      : base(stream, experts::weights_in_memory(host.weights())), gate_(kind::gate(host)) {}
  /// From a source, without a host bank.
  template <experts::weight_source Source>
  device_bank(const executors::cuda_stream& stream, const Source& source, const typename kind::gate_type& gate)
      : base(stream, source), gate_(gate) {
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }
  /// hmoe::error for a bank of another shape, or with weights that W cannot hold; write takes what check accepts.
  void check(const Bank& host) const { base::check(experts::weights_in_memory(host.weights())); }
  void write(const executors::cuda_stream& stream, const Bank& host) {
    base::write(stream, experts::weights_in_memory(host.weights()));
  }
  [[nodiscard]] std::size_t size() const noexcept { return this->layout().size(); }
  [[nodiscard]] const typename kind::gate_type& gate() const noexcept { return gate_; }

private:
  typename kind::gate_type gate_;
};

/// identity and zero: nothing but their number.
template <class Bank, class W, bank_form Form> class device_bank {
public:
  static constexpr bank_form form = Form;
  device_bank(const executors::cuda_stream&, const Bank& host) : size_(host.size()) {}
  void check(const Bank& host) const {
    require(host.size() == size_, "a bank of ", host.size(), " experts is not that of ", size_, " on the device");
  }
  static void write(const executors::cuda_stream&, const Bank&) noexcept {}
  static void download(const executors::cuda_stream&, Bank&) noexcept {}
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] static constexpr std::size_t bytes() noexcept { return 0; }
  [[nodiscard]] static constexpr std::array<std::size_t, 4> gradient_sizes() noexcept { return {}; }
  static void append_tensors(std::vector<device_tensor<W>>&) noexcept {}
  static void add_gradients(const std::array<std::vector<float>, 4>&, Bank&) noexcept {}
  [[nodiscard]] static std::array<std::vector<float>, 4> gradients_of(Bank&) { return {}; }
  static void keep_masters(const executors::cuda_stream&) noexcept {}
  [[nodiscard]] zero_cost_arrays arrays(std::size_t first) const noexcept {
    return {static_cast<index_t>(first), static_cast<index_t>(size_), nullptr, nullptr};
  }

private:
  std::size_t size_;
};

/// W and v of constant experts, always float: mix [size × 2d], constant [size × d].
template <class Bank, class W> class device_bank<Bank, W, bank_form::constant> {
public:
  static constexpr bank_form form = bank_form::constant;
  device_bank(const executors::cuda_stream& stream, const Bank& host) : size_(host.size()), d_(host.d_model()) {
    write(stream, host);
  }
  void check(const Bank& host) const {
    require(host.size() == size_ && host.d_model() == d_, "a bank of ", host.size(), " experts with d_model ",
            host.d_model(), " is not that on the device, of ", size_, " with d_model ", d_);
  }
  void write(const executors::cuda_stream& stream, const Bank& host) {
    // Experts are alike, so ragged storage is contiguous.
    mix_.assign(stream, std::span(host.mix(0).data(), size_ * 2 * d_));
    constant_.assign(stream, std::span(host.constant(0).data(), size_ * d_));
  }
  void download(const executors::cuda_stream& stream, Bank& host) const {
    mix_.read(stream, std::span(host.mix(0).data(), size_ * 2 * d_));
    constant_.read(stream, std::span(host.constant(0).data(), size_ * d_));
    stream.synchronize();
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return mix_.bytes() + constant_.bytes(); }
  [[nodiscard]] std::array<std::size_t, 4> gradient_sizes() const noexcept {
    return {mix_.size(), constant_.size(), 0, 0};
  }
  void append_tensors(std::vector<device_tensor<W>>& list) const {
    list.push_back({nullptr, mix_.data(), nullptr, mix_.size(), true});
    list.push_back({nullptr, constant_.data(), nullptr, constant_.size(), false});
  }
  void add_gradients(const std::array<std::vector<float>, 4>& arrays, Bank& gradients) const {
    for (std::size_t i = 0; i < arrays[0].size(); ++i)
      gradients.mix(0).data()[i] += arrays[0][i];
    for (std::size_t i = 0; i < arrays[1].size(); ++i)
      gradients.constant(0).data()[i] += arrays[1][i];
  }
  [[nodiscard]] std::array<std::vector<float>, 4> gradients_of(Bank& gradients) const {
    const float *const mix = gradients.mix(0).data(), *const constant = gradients.constant(0).data();
    return {
        std::vector<float>(mix, mix + mix_.size()), std::vector<float>(constant, constant + constant_.size()), {}, {}};
  }
  static void keep_masters(const executors::cuda_stream&) noexcept {}
  [[nodiscard]] zero_cost_arrays arrays(std::size_t first) const noexcept {
    return {static_cast<index_t>(first), static_cast<index_t>(size_), mix_.data(), constant_.data()};
  }

private:
  std::size_t size_, d_;
  device_buffer<float> mix_, constant_;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
