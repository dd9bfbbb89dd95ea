// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_bank.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/bank.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

namespace hmoe::backends {

/// How an expert E of a user (a type of one expert, hmoe::expert) runs on the device: a specialisation with two static
/// functions over one row, marked HMOE_HOST_DEVICE. `weights`: the expert's tensors one after the other, in the order
/// of E::visit_parameters. S: what rows are stored in; sums are the function's own, in float.
///   template <> struct hmoe::backends::device_expert<mine::wave> {
///     template <class S> HMOE_HOST_DEVICE static void forward(vector_view<const float> weights,
///                                                             vector_view<const S> x, vector_view<float> y);
///     template <class S> HMOE_HOST_DEVICE static void backward(vector_view<const float> weights,
///                                                              vector_view<const S> x, vector_view<const S> dy,
///                                                              vector_view<float> dx, vector_view<float> d_weights);
///   };                                                     // y =, dx =, d_weights +=
/// A thread runs forward for a row, and a thread backward for all rows of an expert, in the order of tokens: right for
/// experts with few operations. A backward pass runs forward once more, for the gradients of gate weights; dy is the
/// gradient of the output, weighted. Others bring kernels: instead of the two functions
///   template <class S> static void launch_forward(cudaStream_t, const own_expert_rows& rows, row_source<S> x,
///                                                 float* outputs);
///   template <class S> static void launch_backward(cudaStream_t, const own_expert_rows& rows, row_source<S> x,
///                                                  row_source<S> dy, float* dx, float* d_weights);
/// with cuda_detail's row_source and own_expert_rows.
template <class E> struct device_expert;

namespace cuda_detail {

template <class E>
concept has_device_expert = requires { sizeof(device_expert<E>); };

/// The experts of one bank of a user, and the slots that they work on: local expert e has the slots offsets[e] …
/// offsets[e + 1] − 1 of the plan, and writes rows of d values at these slots.
struct own_expert_rows {
  const index_t* offsets;            ///< [experts + 1], on the device
  const float* weights;              ///< of all experts
  const std::size_t* weight_offsets; ///< [experts + 1], also those of gradients
  index_t experts, d;
  index_t most_slots; ///< that the whole layer has room for: a bound for launches
};

template <has_device_expert E> struct device_kind<experts::bank_of<E>> {
  static_assert(std::same_as<typename E::value_type, float>, "hmoe::backends::cuda: an expert of your own over double "
                                                             "has no form on the device: take float");
  static constexpr bank_form form = bank_form::own;
  using functions = device_expert<E>;
};

/// The weights of a user's experts, always float.
template <class Bank, class W> class device_bank<Bank, W, bank_form::own> {
public:
  static constexpr bank_form form = bank_form::own;
  using functions = typename device_kind<Bank>::functions;

  device_bank(const executors::cuda_stream& stream, const Bank& host) : d_(host.d_model()) {
    read_layout(host);
    offsets_.assign(stream, host_offsets_);
    check(host);
    write(stream, host);
  }
  void check(const Bank& host) const {
    device_bank shape;
    shape.read_layout(host);
    require(host.d_model() == d_ && shape.host_offsets_ == host_offsets_ && shape.tensors_ == tensors_,
            "the weights of a bank on the device cannot be taken from one of another shape");
    for (const float weight : values_of(host))
      require(std::isfinite(weight), "a weight of an expert is ", weight, "; weights on the device are finite");
  }
  void write(const executors::cuda_stream& stream, const Bank& host) { weights_.assign(stream, values_of(host)); }
  void download(const executors::cuda_stream& stream, Bank& host) const {
    std::vector<float> values(weights_.size());
    weights_.read(stream, values);
    stream.synchronize();
    walk(host, values, [](float& to, float from) { to = from; });
  }
  static void keep_masters(const executors::cuda_stream&) noexcept {}

  [[nodiscard]] std::size_t size() const noexcept { return host_offsets_.size() - 1; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return widths_[e]; }
  [[nodiscard]] std::size_t bytes() const noexcept { return weights_.bytes(); }
  [[nodiscard]] std::array<std::size_t, 4> gradient_sizes() const noexcept { return {weights_.size(), 0, 0, 0}; }
  void append_tensors(std::vector<device_tensor<W>>& list) const {
    for (const tensor& at : tensors_)
      list.push_back({nullptr, weights_.data() + at.first, nullptr, at.size, at.decay});
  }
  /// Where the gradients of these tensors lie.
  void append_gradients(const ffn_gradient_arrays& arrays, std::vector<float*>& list) const {
    for (const tensor& at : tensors_)
      list.push_back(arrays.in + at.first);
  }
  void add_gradients(const std::array<std::vector<float>, 4>& arrays, Bank& gradients) const {
    walk(gradients, arrays[0], [](float& to, float from) { to += from; });
  }
  [[nodiscard]] std::array<std::vector<float>, 4> gradients_of(Bank& gradients) const {
    return {values_of(gradients), {}, {}, {}};
  }
  [[nodiscard]] own_expert_rows rows(const plan_arrays& plan, std::size_t first) const noexcept {
    return {plan.offsets + first,         weights_.data(),          offsets_.data(),
            static_cast<index_t>(size()), static_cast<index_t>(d_), plan.capacity};
  }

private:
  /// One that is trained.
  struct tensor {
    std::size_t first, size;
    bool decay;
    bool operator==(const tensor&) const = default;
  };

  device_bank() = default;
  void read_layout(const Bank& host) {
    host_offsets_.assign(1, 0);
    for (std::size_t e = 0; e < host.size(); ++e) {
      std::size_t at = host_offsets_.back();
      hmoe::detail::visit_as_const(host[e], [&](const parameter_info& info, matrix_view<const float> view) {
        if (info.trained && view.size() != 0)
          tensors_.push_back({at, view.size(), info.decay});
        at += view.size();
      });
      host_offsets_.push_back(at);
      widths_.push_back(host.width(e));
    }
  }
  [[nodiscard]] static std::vector<float> values_of(const Bank& host) {
    std::vector<float> values;
    host.visit_parameters([&](const parameter_info&, matrix_view<const float> view) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        values.insert(values.end(), view.row(r).begin(), view.row(r).end());
    });
    return values;
  }
  template <class F> static void walk(Bank& host, const std::vector<float>& values, const F& f) {
    const float* from = values.data();
    host.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (float& to : view.row(r))
          f(to, *from++);
    });
  }

  std::size_t d_ = 0;
  std::vector<std::size_t> host_offsets_, widths_;
  std::vector<tensor> tensors_;
  device_buffer<float> weights_;
  device_buffer<std::size_t> offsets_;
};

} // namespace cuda_detail
} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
