// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/ragged_matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/bank.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// Whether the projections of a bank have biases.
enum class biases { none, all };

/// The weights that every two-layer feed-forward kind shares: per expert one matrix that reads the token,
/// [Lanes·h × d] (a GLU has two lanes: h gate rows above h up rows; an MLP has one), and one that writes it, [d × h],
/// both as checkpoints store them (y = W x), in ragged storage without padding. Width 0 is legal: an expert that was
/// pruned away, which returns its output bias, or zero. What kinds do with them differs only
/// between the two projections.
template <real T, std::size_t Lanes> class ffn_weights {
public:
  ffn_weights(std::size_t d_model, std::vector<std::size_t> widths, biases bias)
      : d_model_(d_model), widths_(std::move(widths)), bias_(bias) {
    require(d_model >= 1, "an expert bank needs d_model >= 1");
    require(!widths_.empty(), "an expert bank needs at least one expert");
    std::vector<shape> in, out, in_bias, out_bias;
    for (std::size_t e = 0; e < widths_.size(); ++e) {
      const std::size_t h = widths_[e];
      in.push_back({Lanes * h, d_model});
      out.push_back({d_model, h});
      if (bias == biases::all) {
        in_bias.push_back({1, Lanes * h});
        out_bias.push_back({1, d_model});
      }
    }
    in_ = ragged_matrix<T>(std::move(in));
    out_ = ragged_matrix<T>(std::move(out));
    in_bias_ = ragged_matrix<T>(std::move(in_bias));
    out_bias_ = ragged_matrix<T>(std::move(out_bias));
  }

  [[nodiscard]] std::size_t size() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return widths_[e]; }
  [[nodiscard]] bool has_biases() const noexcept { return bias_ == biases::all; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept {
    return (Lanes + 1) * d_model_ * widths_[e] + (has_biases() ? Lanes * widths_[e] + d_model_ : 0);
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept {
    return 2.0 * static_cast<double>((Lanes + 1) * d_model_ * widths_[e]);
  }

  /// [h×d] rows of one lane of expert e, [d×h] its output matrix, and the biases (empty without).
  [[nodiscard]] matrix_view<T> lane(std::size_t e, std::size_t l) noexcept {
    return in_[e].row_block(l * widths_[e], widths_[e]);
  }
  [[nodiscard]] matrix_view<const T> lane(std::size_t e, std::size_t l) const noexcept {
    return in_[e].row_block(l * widths_[e], widths_[e]);
  }
  /// [Lanes·h × d] all lanes of expert e, one above the other, and their biases (empty without).
  [[nodiscard]] matrix_view<T> input(std::size_t e) noexcept { return in_[e]; }
  [[nodiscard]] matrix_view<const T> input(std::size_t e) const noexcept { return in_[e]; }
  [[nodiscard]] matrix_view<T> input_bias(std::size_t e) noexcept {
    return has_biases() ? in_bias_[e] : matrix_view<T>{};
  }
  [[nodiscard]] matrix_view<T> output(std::size_t e) noexcept { return out_[e]; }
  [[nodiscard]] matrix_view<const T> output(std::size_t e) const noexcept { return out_[e]; }
  [[nodiscard]] matrix_view<T> lane_bias(std::size_t e, std::size_t l) noexcept {
    return has_biases() ? in_bias_[e].column_block(l * widths_[e], widths_[e]) : matrix_view<T>{};
  }
  [[nodiscard]] matrix_view<const T> lane_bias(std::size_t e, std::size_t l) const noexcept {
    return has_biases() ? in_bias_[e].column_block(l * widths_[e], widths_[e]) : matrix_view<const T>{};
  }
  [[nodiscard]] matrix_view<T> output_bias(std::size_t e) noexcept {
    return has_biases() ? out_bias_[e] : matrix_view<T>{};
  }
  [[nodiscard]] matrix_view<const T> output_bias(std::size_t e) const noexcept {
    return has_biases() ? out_bias_[e] : matrix_view<const T>{};
  }

  /// hidden[n × Lanes·h] = x W_inᵀ + b_in
  template <class Math>
  void project_in(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<T> hidden) const {
    math.multiply_transposed(x, in_[e], hidden);
    if (has_biases())
      add_to_rows(in_bias_[e].row(0), hidden);
  }
  /// y[n×d] = activated W_outᵀ + b_out
  template <class Math>
  void project_out(const Math& math, std::size_t e, matrix_view<const T> activated, matrix_view<T> y) const {
    math.multiply_transposed(activated, out_[e], y);
    if (has_biases())
      add_to_rows(out_bias_[e].row(0), y);
  }
  /// d_activated = dy W_out; gradients of W_out and b_out.
  template <class Math>
  void backward_out(const Math& math, std::size_t e, matrix_view<const T> activated, matrix_view<const T> dy,
                    matrix_view<T> d_activated, ffn_weights& gradients) const {
    math.multiply(dy, out_[e], d_activated);
    math.accumulate_transposed(dy, activated, gradients.out_[e]);
    if (has_biases())
      add_column_sums(dy, gradients.out_bias_[e].row(0));
  }
  /// dx = d_hidden W_in; gradients of W_in and b_in.
  template <class Math>
  void backward_in(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<const T> d_hidden,
                   matrix_view<T> dx, ffn_weights& gradients) const {
    math.multiply(d_hidden, in_[e], dx);
    math.accumulate_transposed(d_hidden, x, gradients.in_[e]);
    if (has_biases())
      add_column_sums(d_hidden, gradients.in_bias_[e].row(0));
  }

  template <class Visitor>
  void visit_parameters(const std::array<std::string_view, Lanes>& lane_names,
                        const std::array<std::string_view, Lanes>& lane_bias_names, Visitor&& visit) {
    for (std::size_t e = 0; e < size(); ++e) {
      for (std::size_t l = 0; l < Lanes; ++l)
        visit(parameter_info{lane_names[l], true, e}, lane(e, l));
      visit(parameter_info{"down", true, e}, output(e));
      if (!has_biases())
        continue;
      for (std::size_t l = 0; l < Lanes; ++l)
        visit(parameter_info{lane_bias_names[l], false, e}, lane_bias(e, l));
      visit(parameter_info{"down_bias", false, e}, output_bias(e));
    }
  }

  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    for (std::size_t e = 0; e < size(); ++e) {
      const std::uint64_t stream = first_stream + e * streams_per_expert;
      const auto all = [](matrix_view<T> m) { return vector_view<T>(m.data(), m.size()); };
      fill_normal(all(in_[e]), 1.0 / std::sqrt(static_cast<double>(d_model_)), key, stream);
      fill_normal(all(out_[e]),
                  options.output_gain / std::sqrt(static_cast<double>(std::max<std::size_t>(widths_[e], 1))), key,
                  stream + 1);
      if (has_biases()) {
        fill_normal(all(in_bias_[e]), 0.0, key, stream);
        fill_normal(all(out_bias_[e]), 0.0, key, stream);
      }
    }
  }

private:
  using shape = typename ragged_matrix<T>::shape;

  static void add_to_rows(vector_view<const T> bias, matrix_view<T> rows) noexcept {
    for (std::size_t r = 0; r < rows.rows(); ++r)
      for (std::size_t c = 0; c < rows.cols(); ++c)
        rows(r, c) += bias[c];
  }
  static void add_column_sums(matrix_view<const T> rows, vector_view<T> sums) noexcept {
    for (std::size_t r = 0; r < rows.rows(); ++r)
      for (std::size_t c = 0; c < rows.cols(); ++c)
        sums[c] += rows(r, c);
  }

  std::size_t d_model_;
  std::vector<std::size_t> widths_;
  biases bias_;
  ragged_matrix<T> in_, out_, in_bias_, out_bias_;
};

} // namespace hmoe::experts
