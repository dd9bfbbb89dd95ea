// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assertions.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/ragged_matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/bank.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// The tensors of one expert in the caller's memory: row-major, at any address, with any distance between rows.
template <class T> struct constant_tensors {
  matrix_view<T> mix;      ///< [2×d]
  matrix_view<T> constant; ///< [1×d]
};

/// MoE++'s constant experts (arXiv 2410.07348): expert_e(x) = a x + b v_e, (a, b) = softmax(W_e x), with a
/// learned vector v_e [d] and W_e [2×d]. Width 0; about 7d operations per token, done in place with sums in double:
/// they use no matrix product. Parameters are named mix (W) and constant (v).
template <float_or_double T> class constant_bank {
public:
  using value_type = T;

  /// Zeros, in memory of the given resource.
  explicit constant_bank(std::size_t d_model, std::size_t count = 1,
                         std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : d_model_(d_model) {
    require(d_model >= 1, "an expert bank needs d_model >= 1");
    require(count >= 1, "an expert bank needs at least one expert");
    mix_ = ragged_matrix<T>(std::vector<shape>(count, shape{2, d_model}), memory);
    constant_ = ragged_matrix<T>(std::vector<shape>(count, shape{1, d_model}), memory);
    for (std::size_t e = 0; e < count; ++e)
      experts_.push_back({mix_[e], constant_[e]});
  }
  /// On the caller's tensors, which must outlive the bank. A copy of the bank has tensors of its own. Those of const T
  /// are read only: the bank cannot be initialised or trained, and shows no mutable view.
  explicit constant_bank(std::vector<constant_tensors<T>> experts) : experts_(std::move(experts)) {
    require(!experts_.empty(), "an expert bank needs at least one expert");
    d_model_ = experts_[0].mix.cols();
    require(d_model_ >= 1, "an expert bank needs d_model >= 1");
    for (std::size_t e = 0; e < size(); ++e) {
      const constant_tensors<T>& given = experts_[e];
      require(given.mix.rows() == 2 && given.mix.cols() == d_model_ && given.constant.rows() == 1 &&
                  given.constant.cols() == d_model_,
              "constant expert ", e, ": mix is ", given.mix.rows(), " x ", given.mix.cols(), " and constant ",
              given.constant.rows(), " x ", given.constant.cols(), ", needed are 2 x ", d_model_, " and 1 x ",
              d_model_);
    }
  }
  explicit constant_bank(const std::vector<constant_tensors<const T>>& experts) : constant_bank(as_mutable(experts)) {
    read_only_ = true;
  }
  constant_bank(const constant_bank& other) : constant_bank(other.d_model_, other.size()) {
    for (std::size_t e = 0; e < size(); ++e) {
      for (std::size_t r = 0; r < 2; ++r)
        std::ranges::copy(other.mix(e).row(r), mix(e).row(r).begin());
      std::ranges::copy(other.constant(e), constant(e).begin());
    }
  }
  constant_bank(constant_bank&&) noexcept = default;
  constant_bank& operator=(const constant_bank& other) {
    if (this != &other)
      *this = constant_bank(other);
    return *this;
  }
  constant_bank& operator=(constant_bank&&) noexcept = default;
  ~constant_bank() = default;

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] static constexpr std::size_t width(std::size_t) noexcept { return 0; }
  [[nodiscard]] std::size_t parameter_count(std::size_t) const noexcept { return 3 * d_model_; }
  [[nodiscard]] double flops_per_row(std::size_t) const noexcept { return 7.0 * static_cast<double>(d_model_); }
  /// Saved of a row: [a, b].
  [[nodiscard]] static constexpr std::size_t saved_per_row(std::size_t) noexcept { return 2; }
  [[nodiscard]] static constexpr std::size_t scratch_per_row(std::size_t) noexcept { return 0; }

  /// [2×d] and [d] of expert e. Mutable views are an hmoe::error where the caller's memory is to be read only.
  [[nodiscard]] matrix_view<T> mix(std::size_t e) { return writable(e).mix; }
  [[nodiscard]] matrix_view<const T> mix(std::size_t e) const noexcept { return at(e).mix; }
  [[nodiscard]] vector_view<T> constant(std::size_t e) { return writable(e).constant.row(0); }
  [[nodiscard]] vector_view<const T> constant(std::size_t e) const noexcept { return at(e).constant.row(0); }

  template <class Math>
  void forward(const Math&, std::size_t e, matrix_view<const T> x, matrix_view<T> y,
               matrix_view<T> saved) const noexcept {
    const matrix_view<const T> w = mix(e);
    const vector_view<const T> v = constant(e);
    for (std::size_t r = 0; r < x.rows(); ++r) {
      double gap = 0; // logit of b less that of a
      for (std::size_t i = 0; i < d_model_; ++i)
        gap += (static_cast<double>(w(1, i)) - static_cast<double>(w(0, i))) * static_cast<double>(x(r, i));
      const T a = static_cast<T>(1 / (1 + std::exp(gap))), b = static_cast<T>(1 / (1 + std::exp(-gap)));
      saved(r, 0) = a;
      saved(r, 1) = b;
      for (std::size_t i = 0; i < d_model_; ++i)
        y(r, i) = a * x(r, i) + b * v[i];
    }
  }

  template <class Math>
  void backward(const Math&, std::size_t e, matrix_view<const T> x, matrix_view<const T> saved, matrix_view<const T> dy,
                matrix_view<T> dx, matrix_view<T>, constant_bank& gradients) const {
    const matrix_view<const T> w = mix(e);
    const vector_view<const T> v = constant(e);
    const matrix_view<T> d_mix = gradients.mix(e);
    const vector_view<T> d_constant = gradients.constant(e);
    for (std::size_t r = 0; r < x.rows(); ++r) {
      const T a = saved(r, 0), b = saved(r, 1);
      double difference = 0; // ∂L/∂a − ∂L/∂b
      for (std::size_t i = 0; i < d_model_; ++i)
        difference += static_cast<double>(dy(r, i)) * (static_cast<double>(x(r, i)) - static_cast<double>(v[i]));
      const T d_logit = static_cast<T>(static_cast<double>(a) * static_cast<double>(b) * difference); // of a; −it of b
      for (std::size_t i = 0; i < d_model_; ++i) {
        dx(r, i) = a * dy(r, i) + d_logit * (w(0, i) - w(1, i));
        d_constant[i] += b * dy(r, i);
        d_mix(0, i) += d_logit * x(r, i);
        d_mix(1, i) -= d_logit * x(r, i);
      }
    }
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    const auto read = hmoe::detail::read_with(visit);
    for (std::size_t e = 0; e < size(); ++e)
      visit_tensors(e, at(e), read);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    for (std::size_t e = 0; e < size(); ++e)
      visit_tensors(e, writable(e), visit);
  }
  /// W has standard deviation 1/√d, v output_gain: what the outputs of other kinds have.
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    const double stddev = 1.0 / std::sqrt(static_cast<double>(d_model_));
    for (std::size_t e = 0; e < size(); ++e) {
      const std::uint64_t stream = first_stream + e * streams_per_expert;
      for (std::size_t r = 0; r < 2; ++r) // value (r, i) is element r·d + i of the stream, wherever the rows lie
        for (std::size_t i = 0; i < d_model_; ++i)
          mix(e)(r, i) = static_cast<T>(stddev * normal(key, stream, r * d_model_ + i));
      fill_normal(constant(e), options.output_gain, key, stream + 1);
    }
  }

private:
  using shape = typename ragged_matrix<T>::shape;

  [[nodiscard]] static std::vector<constant_tensors<T>> as_mutable(const std::vector<constant_tensors<const T>>& from) {
    std::vector<constant_tensors<T>> result;
    for (const auto& given : from)
      result.push_back({hmoe::detail::as_mutable(given.mix), hmoe::detail::as_mutable(given.constant)});
    return result;
  }
  template <class Visitor>
  static void visit_tensors(std::size_t e, const constant_tensors<T>& tensors, Visitor&& visit) {
    visit(parameter_info{"mix", true, e}, tensors.mix);
    visit(parameter_info{"constant", false, e}, tensors.constant);
  }
  [[nodiscard]] const constant_tensors<T>& at(std::size_t e) const noexcept {
    HMOE_ASSERT_INDEX("expert", e, size());
    return experts_[e];
  }
  [[nodiscard]] const constant_tensors<T>& writable(std::size_t e) const {
    hmoe::detail::require_writable(!read_only_);
    return at(e);
  }

  std::size_t d_model_ = 0;
  bool read_only_ = false;
  ragged_matrix<T> mix_, constant_; ///< empty where the caller has the tensors
  std::vector<constant_tensors<T>> experts_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
