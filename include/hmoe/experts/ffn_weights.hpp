// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/ragged_matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/bank.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory_resource>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// Whether the projections of a bank have biases.
enum class biases { none, all };

/// The tensors of one expert in the caller's memory: row-major, at any address, with any distance between rows. The
/// biases are empty where there are none.
template <class T, std::size_t Lanes> struct ffn_tensors {
  std::array<matrix_view<T>, Lanes> lanes;         ///< [h × d] each; of a GLU gate and up
  matrix_view<T> output;                           ///< [d × h]
  std::array<matrix_view<T>, Lanes> lane_biases{}; ///< [1 × h] each
  matrix_view<T> output_bias{};                    ///< [1 × d]
};

/// The weights that every two-layer feed-forward kind shares: per expert one matrix that reads the token,
/// [Lanes·h × d] (a GLU has two lanes: h gate rows above h up rows; an MLP has one), and one that writes it, [d × h],
/// both as checkpoints store them (y = W x). They are the bank's own, in ragged storage without padding, or the
/// caller's: then they must outlive the bank, and a copy of the bank has weights of its own. Width 0 is legal: an
/// expert that was pruned away, which returns its output bias, or zero. What kinds do with the weights differs only
/// between the two projections.
template <float_or_double T, std::size_t Lanes> class ffn_weights {
public:
  using tensors = ffn_tensors<T, Lanes>;

  /// Zeros, in memory of the given resource.
  ffn_weights(std::size_t d_model, const std::vector<std::size_t>& widths, biases bias,
              std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : d_model_(d_model), bias_(bias), owned_(true) {
    require(d_model >= 1, "an expert bank needs d_model >= 1");
    require(!widths.empty(), "an expert bank needs at least one expert");
    std::vector<shape> in, out, in_bias, out_bias;
    for (const std::size_t h : widths) {
      in.push_back({Lanes * h, d_model});
      out.push_back({d_model, h});
      if (bias == biases::all) {
        in_bias.push_back({1, Lanes * h});
        out_bias.push_back({1, d_model});
      }
    }
    in_ = ragged_matrix<T>(std::move(in), memory);
    out_ = ragged_matrix<T>(std::move(out), memory);
    in_bias_ = ragged_matrix<T>(std::move(in_bias), memory);
    out_bias_ = ragged_matrix<T>(std::move(out_bias), memory);
    for (std::size_t e = 0; e < widths.size(); ++e) {
      const std::size_t h = widths[e];
      tensors expert{.lanes = {}, .output = out_[e]};
      for (std::size_t l = 0; l < Lanes; ++l) {
        expert.lanes[l] = in_[e].row_block(l * h, h);
        if (has_biases())
          expert.lane_biases[l] = in_bias_[e].column_block(l * h, h);
      }
      if (has_biases())
        expert.output_bias = out_bias_[e];
      experts_.push_back(expert);
    }
  }
  /// On the caller's memory. hmoe::error where shapes do not fit one another, or some tensors have biases and others
  /// none.
  explicit ffn_weights(std::vector<tensors> experts) : experts_(std::move(experts)) {
    require(!experts_.empty(), "an expert bank needs at least one expert");
    d_model_ = experts_[0].output.rows();
    bias_ = experts_[0].output_bias.rows() != 0 ? biases::all : biases::none;
    require(d_model_ >= 1, "an expert bank needs d_model >= 1");
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      const tensors& given = experts_[e];
      const std::size_t h = given.output.cols();
      check_shape(e, "output", given.output, d_model_, h);
      check_shape(e, "output bias", given.output_bias, has_biases() ? 1 : 0, has_biases() ? d_model_ : 0);
      for (std::size_t l = 0; l < Lanes; ++l) {
        check_shape(e, "input", given.lanes[l], h, d_model_);
        check_shape(e, "input bias", given.lane_biases[l], has_biases() ? 1 : 0, has_biases() ? h : 0);
      }
    }
  }
  /// On the caller's memory, to read: the bank cannot be initialised or trained, and shows no mutable view.
  explicit ffn_weights(const std::vector<ffn_tensors<const T, Lanes>>& experts) : ffn_weights(mutable_views(experts)) {
    read_only_ = true;
  }

  /// The copy owns its weights, whoever owns those of `other`.
  ffn_weights(const ffn_weights& other) : ffn_weights(other.d_model_, other.widths(), other.bias_) {
    for (std::size_t e = 0; e < size(); ++e) {
      for (std::size_t l = 0; l < Lanes; ++l) {
        copy(other.experts_[e].lanes[l], experts_[e].lanes[l]);
        copy(other.experts_[e].lane_biases[l], experts_[e].lane_biases[l]);
      }
      copy(other.experts_[e].output, experts_[e].output);
      copy(other.experts_[e].output_bias, experts_[e].output_bias);
    }
  }
  ffn_weights(ffn_weights&&) noexcept = default;
  ffn_weights& operator=(const ffn_weights& other) {
    if (this != &other)
      *this = ffn_weights(other);
    return *this;
  }
  ffn_weights& operator=(ffn_weights&&) noexcept = default;
  ~ffn_weights() = default;

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return experts_[e].output.cols(); }
  [[nodiscard]] bool has_biases() const noexcept { return bias_ == biases::all; }
  /// Whether the bank holds its weights itself.
  [[nodiscard]] bool owned() const noexcept { return owned_; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept {
    return (Lanes + 1) * d_model_ * width(e) + (has_biases() ? Lanes * width(e) + d_model_ : 0);
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept {
    return 2.0 * static_cast<double>((Lanes + 1) * d_model_ * width(e));
  }

  /// [h×d] rows of one lane of expert e, [d×h] its output matrix, and the biases (empty without). Mutable views are an
  /// hmoe::error where the caller's memory is to be read only.
  [[nodiscard]] matrix_view<T> lane(std::size_t e, std::size_t l) { return writable(e).lanes[l]; }
  [[nodiscard]] matrix_view<const T> lane(std::size_t e, std::size_t l) const noexcept { return at(e).lanes[l]; }
  [[nodiscard]] matrix_view<T> output(std::size_t e) { return writable(e).output; }
  [[nodiscard]] matrix_view<const T> output(std::size_t e) const noexcept { return at(e).output; }
  [[nodiscard]] matrix_view<T> lane_bias(std::size_t e, std::size_t l) { return writable(e).lane_biases[l]; }
  [[nodiscard]] matrix_view<const T> lane_bias(std::size_t e, std::size_t l) const noexcept {
    return at(e).lane_biases[l];
  }
  [[nodiscard]] matrix_view<T> output_bias(std::size_t e) { return writable(e).output_bias; }
  [[nodiscard]] matrix_view<const T> output_bias(std::size_t e) const noexcept { return at(e).output_bias; }

  /// Whether the lanes of every expert stand one above the other, as in the bank's own storage.
  [[nodiscard]] bool stacked() const noexcept {
    for (std::size_t e = 0; e < size(); ++e)
      if (!stacked(e))
        return false;
    return true;
  }
  /// [Lanes·h × d] all lanes of expert e, one above the other, and their biases (empty without); for stacked lanes.
  [[nodiscard]] matrix_view<T> input(std::size_t e) { return stack(writable(e).lanes); }
  [[nodiscard]] matrix_view<const T> input(std::size_t e) const noexcept { return stack(at(e).lanes); }
  [[nodiscard]] matrix_view<T> input_bias(std::size_t e) {
    if (!has_biases())
      return {};
    require(owned_, "input_bias(", e, ") of a bank on the caller's memory: its lanes may lie apart");
    return in_bias_[e];
  }

  /// hidden[n × Lanes·h] = x W_inᵀ + b_in
  template <class Math>
  void project_in(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<T> hidden) const {
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, product(probes::stage::gate_up, false, e, x.rows()));
    const std::size_t h = width(e);
    if (stacked(e))
      math.multiply_transposed(x, input(e), hidden);
    else
      for (std::size_t l = 0; l < Lanes; ++l)
        math.multiply_transposed(x, lane(e, l), hidden.column_block(l * h, h));
    if (has_biases())
      for (std::size_t l = 0; l < Lanes; ++l)
        add_to_rows(lane_bias(e, l).row(0), hidden.column_block(l * h, h));
  }
  /// y[n×d] = activated W_outᵀ + b_out
  template <class Math>
  void project_out(const Math& math, std::size_t e, matrix_view<const T> activated, matrix_view<T> y) const {
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, product(probes::stage::down, false, e, activated.rows()));
    math.multiply_transposed(activated, output(e), y);
    if (has_biases())
      add_to_rows(output_bias(e).row(0), y);
  }
  /// d_activated = dy W_out; gradients of W_out and b_out. What has no memory is not computed: tensors of the
  /// gradients, and dx in backward_in.
  template <class Math>
  void backward_out(const Math& math, std::size_t e, matrix_view<const T> activated, matrix_view<const T> dy,
                    matrix_view<T> d_activated, ffn_weights& gradients) const {
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, product(probes::stage::down, true, e, dy.rows()));
    math.multiply(dy, output(e), d_activated);
    if (gradients.output(e).data() != nullptr)
      math.accumulate_transposed(dy, activated, gradients.output(e));
    if (gradients.output_bias(e).data() != nullptr)
      add_column_sums(dy, gradients.output_bias(e).row(0));
  }
  /// dx = d_hidden W_in; gradients of W_in and b_in. Where lanes lie apart, dx is the sum of a product for each, which
  /// may differ in the last bits from the product with stacked lanes.
  template <class Math>
  void backward_in(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<const T> d_hidden,
                   matrix_view<T> dx, ffn_weights& gradients) const {
    const std::size_t h = width(e);
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, product(probes::stage::gate_up, true, e, x.rows()));
    if (dx.data() != nullptr) {
      if (stacked(e))
        math.multiply(d_hidden, input(e), dx);
      else
        for (std::size_t l = 0; l < Lanes; ++l)
          if (l == 0)
            math.multiply(d_hidden.column_block(0, h), lane(e, 0), dx);
          else
            math.accumulate(d_hidden.column_block(l * h, h), lane(e, l), dx);
    }
    const bool together = gradients.lane(e, 0).data() != nullptr && gradients.stacked(e);
    if (together)
      math.accumulate_transposed(d_hidden, x, gradients.input(e));
    for (std::size_t l = 0; l < Lanes; ++l) {
      const matrix_view<const T> d_lane = d_hidden.column_block(l * h, h);
      if (!together && gradients.lane(e, l).data() != nullptr)
        math.accumulate_transposed(d_lane, x, gradients.lane(e, l));
      if (gradients.lane_bias(e, l).data() != nullptr)
        add_column_sums(d_lane, gradients.lane_bias(e, l).row(0));
    }
  }

  /// The event of the activation of `rows` rows of expert e.
  [[nodiscard]] probes::event activation(probes::direction direction, std::size_t e, std::size_t rows) const noexcept {
    const std::size_t values = direction == probes::direction::forward ? Lanes + 1 : 2 * Lanes + 1;
    return {probes::stage::activation, direction, rows,
            static_cast<double>(rows * width(e)) * static_cast<double>(values * sizeof(T))};
  }

  using names = std::array<std::string_view, Lanes>;
  template <class Visitor>
  void visit_parameters(const names& lane_names, const names& lane_bias_names, Visitor&& visit) const {
    visit_in(*this, lane_names, lane_bias_names, visit);
  }
  template <class Visitor>
  void visit_parameters(const names& lane_names, const names& lane_bias_names, Visitor&& visit) {
    visit_in(*this, lane_names, lane_bias_names, visit);
  }

  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    for (std::size_t e = 0; e < size(); ++e) {
      const std::uint64_t stream = first_stream + e * streams_per_expert;
      const double fan_in = static_cast<double>(std::max<std::size_t>(width(e), 1));
      for (std::size_t l = 0; l < Lanes; ++l)
        draw(lane(e, l), 1.0 / std::sqrt(static_cast<double>(d_model_)), key, stream, l * width(e) * d_model_);
      draw(output(e), options.output_gain / std::sqrt(fan_in), key, stream + 1, 0);
      for (std::size_t l = 0; l < Lanes; ++l)
        clear(lane_bias(e, l));
      clear(output_bias(e));
    }
  }

private:
  using shape = typename ragged_matrix<T>::shape;

  /// The event of a product of `rows` rows with the input or the output matrix; backward has two of them, and adds to a
  /// gradient of the matrix's size.
  [[nodiscard]] probes::event product(probes::stage stage, bool backward, std::size_t e,
                                      std::size_t rows) const noexcept {
    const auto n = static_cast<double>(rows), d = static_cast<double>(d_model_);
    const double hidden = static_cast<double>((stage == probes::stage::gate_up ? Lanes : 1) * width(e));
    const double products = backward ? 2 : 1;
    return {stage, backward ? probes::direction::backward : probes::direction::forward, rows,
            ((1 + 2 * (products - 1)) * hidden * d + products * n * (d + hidden)) * sizeof(T),
            2 * products * n * d * hidden};
  }

  template <class Self, class Visitor>
  static void visit_in(Self& self, const names& lane_names, const names& lane_bias_names, Visitor& visit) {
    for (std::size_t e = 0; e < self.size(); ++e) {
      for (std::size_t l = 0; l < Lanes; ++l)
        visit(parameter_info{lane_names[l], true, e}, self.lane(e, l));
      visit(parameter_info{"down", true, e}, self.output(e));
      if (!self.has_biases())
        continue;
      for (std::size_t l = 0; l < Lanes; ++l)
        visit(parameter_info{lane_bias_names[l], false, e}, self.lane_bias(e, l));
      visit(parameter_info{"down_bias", false, e}, self.output_bias(e));
    }
  }

  [[nodiscard]] static std::vector<tensors> mutable_views(const std::vector<ffn_tensors<const T, Lanes>>& experts) {
    using hmoe::detail::as_mutable;
    std::vector<tensors> result;
    for (const auto& given : experts) {
      tensors& t = result.emplace_back();
      for (std::size_t l = 0; l < Lanes; ++l) {
        t.lanes[l] = as_mutable(given.lanes[l]);
        t.lane_biases[l] = as_mutable(given.lane_biases[l]);
      }
      t.output = as_mutable(given.output);
      t.output_bias = as_mutable(given.output_bias);
    }
    return result;
  }
  static void check_shape(std::size_t e, std::string_view name, matrix_view<const T> given, std::size_t rows,
                          std::size_t cols) {
    require(given.rows() == rows && given.cols() == cols, "expert ", e, ": its ", name, " is ", given.rows(), " x ",
            given.cols(), ", needed is ", rows, " x ", cols);
  }
  [[nodiscard]] std::vector<std::size_t> widths() const {
    std::vector<std::size_t> result;
    for (std::size_t e = 0; e < size(); ++e)
      result.push_back(width(e));
    return result;
  }
  [[nodiscard]] const tensors& at(std::size_t e) const noexcept {
    HMOE_ASSERT_INDEX("expert", e, size());
    return experts_[e];
  }
  [[nodiscard]] tensors& writable(std::size_t e) {
    HMOE_ASSERT_INDEX("expert", e, size());
    hmoe::detail::require_writable(!read_only_);
    return experts_[e];
  }
  [[nodiscard]] bool stacked(std::size_t e) const noexcept {
    const auto& lanes = experts_[e].lanes;
    for (std::size_t l = 1; l < Lanes; ++l)
      if (lanes[l].stride() != lanes[0].stride() ||
          lanes[l].data() != lanes[0].data() + l * width(e) * lanes[0].stride())
        return false;
    return true;
  }
  [[nodiscard]] static matrix_view<T> stack(const std::array<matrix_view<T>, Lanes>& lanes) noexcept {
    return {lanes[0].data(), Lanes * lanes[0].rows(), lanes[0].cols(), lanes[0].stride()};
  }
  static void copy(matrix_view<const T> from, matrix_view<T> to) noexcept {
    for (std::size_t r = 0; r < from.rows(); ++r)
      std::copy(from.row(r).begin(), from.row(r).end(), to.row(r).begin());
  }
  static void clear(matrix_view<T> values) noexcept {
    for (std::size_t r = 0; r < values.rows(); ++r)
      std::fill(values.row(r).begin(), values.row(r).end(), T(0));
  }
  /// Value (r, c) is element first + r·cols + c of the stream, wherever the rows lie.
  static void draw(matrix_view<T> values, double stddev, seed key, std::uint64_t stream, std::uint64_t first) noexcept {
    for (std::size_t r = 0; r < values.rows(); ++r)
      for (T& value : values.row(r))
        value = static_cast<T>(stddev * normal(key, stream, first++));
  }
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

  std::size_t d_model_ = 0;
  biases bias_ = biases::none;
  bool owned_ = false, read_only_ = false;
  ragged_matrix<T> in_, out_, in_bias_, out_bias_; ///< empty where the caller has the weights
  std::vector<tensors> experts_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
