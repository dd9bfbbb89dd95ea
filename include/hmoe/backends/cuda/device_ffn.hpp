// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/device_weight.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::backends::cuda_detail {

/// Where the tensors of a bank of two-layer feed-forward experts lie in the arrays of its weights, which is also where
/// their gradients lie. W: element type of the matrices.
class ffn_layout {
public:
  ffn_layout() = default;
  template <class W, experts::weight_source Source>
  ffn_layout(std::type_identity<W>, const Source& host)
      : d_(host.d_model()), lanes_(Source::lanes), in_stride_(row_elements<W>(d_)), biases_(host.has_biases()) {
    std::size_t in = 0, out = 0, bias = 0;
    for (std::size_t e = 0; e < host.size(); ++e) {
      const std::size_t h = host.width(e), stride = row_elements<W>(h);
      require(h >= 1, "expert ", e,
              " of a feed-forward bank has width 0, which the device does not run: put a "
              "zero_bank or a constant_bank in its place");
      experts_.push_back({h, in, out, bias, stride});
      in += stored_rows<W>(h, lanes_) * in_stride_;
      out += stored_rows<W>(d_, 1) * stride;
      bias += biases_ ? lanes_ * h : 0;
    }
    in_size_ = in;
    out_size_ = out;
    in_bias_size_ = bias;
  }

  struct expert {
    std::size_t width, in, out, in_bias, out_stride;
  };
  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] const expert& operator[](std::size_t e) const noexcept { return experts_[e]; }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_; }
  [[nodiscard]] std::size_t lanes() const noexcept { return lanes_; }
  [[nodiscard]] std::size_t in_stride() const noexcept { return in_stride_; }
  [[nodiscard]] bool has_biases() const noexcept { return biases_; }
  [[nodiscard]] std::size_t in_size() const noexcept { return in_size_; }
  [[nodiscard]] std::size_t out_size() const noexcept { return out_size_; }
  [[nodiscard]] std::size_t in_bias_size() const noexcept { return in_bias_size_; }
  [[nodiscard]] std::size_t out_bias_size() const noexcept { return biases_ ? size() * d_ : 0; }
  [[nodiscard]] std::size_t widest() const noexcept {
    std::size_t most = 0;
    for (const expert& e : experts_)
      most = std::max(most, e.width);
    return most;
  }
  [[nodiscard]] bool operator==(const ffn_layout& other) const noexcept {
    return d_ == other.d_ && lanes_ == other.lanes_ && in_stride_ == other.in_stride_ && biases_ == other.biases_ &&
           std::ranges::equal(experts_, other.experts_, {}, &expert::width, &expert::width);
  }

  /// Calls f(host tensor, first element, elements per row, which array) for each tensor of a host bank: 0 in, 1 out,
  /// 2 in_bias, 3 out_bias. Banks visit lanes, output, biases of the lanes, bias of the output, expert by expert.
  template <class Bank, class F> void for_each_tensor(Bank& bank, F&& f) const {
    std::size_t expert_id = no_index, tensor = 0;
    bank.visit_parameters([&](const parameter_info& info, matrix_view<float> view) {
      tensor = info.expert == expert_id ? tensor + 1 : 0;
      expert_id = info.expert;
      const expert& at = experts_[info.expert];
      if (tensor < lanes_)
        f(view, at.in + tensor * at.width * in_stride_, in_stride_, 0);
      else if (tensor == lanes_)
        f(view, at.out, at.out_stride, 1);
      else if (tensor <= 2 * lanes_)
        f(view, at.in_bias + (tensor - lanes_ - 1) * at.width, at.width, 2);
      else
        f(view, info.expert * d_, d_, 3);
    });
  }

private:
  std::size_t d_ = 0, lanes_ = 0, in_stride_ = 0;
  bool biases_ = false;
  std::vector<expert> experts_;
  std::size_t in_size_ = 0, out_size_ = 0, in_bias_size_ = 0;
};

/// One trained tensor of a device layer, for optimisers: values of S, or floats.
template <class S> struct device_tensor {
  S* values;      ///< matrices of two-layer experts; null: floats
  float* floats;  ///< everything else
  float* masters; ///< `values` in float, from which they are rounded; null: there are none
  std::size_t size;
  bool decay; ///< whether weight decay applies
};

/// The weights of a bank of two-layer feed-forward experts on the device: held once, in the host's order, rows padded
/// to 16 bytes, widths as they are. W: float, bfloat16, half or a block, which lie in cells (weight_cell.hpp).
template <std::size_t Lanes, class W> class device_ffn {
  using stored = stored_weight<W>;

public:
  template <experts::weight_source Source>
  device_ffn(const executors::cuda_stream& stream, const Source& source) : layout_(std::type_identity<W>{}, source) {
    static_assert(Source::lanes == Lanes, "hmoe::backends::cuda: the source of weights is for experts of another kind: "
                                          "a GLU has two lanes, an MLP one");
    std::vector<std::size_t> in, out, bias;
    std::vector<index_t> strides, widths;
    for (std::size_t e = 0; e < layout_.size(); ++e) {
      in.push_back(layout_[e].in);
      out.push_back(layout_[e].out);
      bias.push_back(layout_[e].in_bias);
      strides.push_back(static_cast<index_t>(layout_[e].out_stride));
      widths.push_back(static_cast<index_t>(layout_[e].width));
    }
    in_offsets_.assign(stream, in);
    out_offsets_.assign(stream, out);
    in_bias_offsets_.assign(stream, bias);
    out_strides_.assign(stream, strides);
    widths_.assign(stream, widths);
    in_.resize_for_overwrite(stream, layout_.in_size());
    out_.resize_for_overwrite(stream, layout_.out_size());
    in_bias_.resize_for_overwrite(stream, layout_.in_bias_size());
    out_bias_.resize_for_overwrite(stream, layout_.out_bias_size());
    write(stream, source);
  }

  [[nodiscard]] const ffn_layout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return in_.bytes() + out_.bytes() + in_bias_.bytes() + out_bias_.bytes() + in_masters_.bytes() +
           out_masters_.bytes();
  }

  /// Makes room for the matrices in float beside those of W, of which they are the rounding; upload and download then
  /// know both. Their values are the caller's to fill in.
  void keep_masters(const executors::cuda_stream& stream) {
    in_masters_.resize_for_overwrite(stream, layout_.in_size());
    out_masters_.resize_for_overwrite(stream, layout_.out_size());
    in_masters_.set_zero(stream); // with the padding behind rows
    out_masters_.set_zero(stream);
  }
  [[nodiscard]] bool has_masters() const noexcept { return in_masters_.size() != 0; }

  /// Reads all weights of a source, which must have the same shape and values that W can hold: before the first of a
  /// layer is written.
  template <experts::weight_source Source> void check(const Source& source) const {
    require(ffn_layout(std::type_identity<W>{}, source) == layout_,
            "the weights of a bank on the device cannot be taken from one of another shape");
    for_each_part(source, [](const stored_part&) {});
  }
  /// Takes the weights of a source that check accepts.
  template <class Source> void write(const executors::cuda_stream& stream, const Source& source) {
    for_each_part(source, [&](const stored_part& part) {
      copy_rows<stored>(
          stream, matrix_view<const stored>(part.values.data(), 1, part.values.size()),
          matrix_view<stored, device_space>((part.in ? in_ : out_).data() + part.at, 1, part.values.size()),
          cudaMemcpyHostToDevice);
      if (has_masters())
        copy_rows<float>(stream, part.floats,
                         device_rows((part.in ? in_masters_ : out_masters_).data() + part.at, part.floats.rows(),
                                     part.floats.cols(), part.stride),
                         cudaMemcpyHostToDevice);
    });
    if (!layout_.has_biases())
      return;
    std::vector<float> in(layout_.in_bias_size()), out(layout_.out_bias_size());
    for (std::size_t e = 0; e < layout_.size(); ++e) {
      const std::size_t h = layout_[e].width, d = layout_.d_model();
      for (std::size_t l = 0; l < Lanes; ++l)
        source.read_bias(e, l, 0, matrix_view<float>(in.data() + layout_[e].in_bias + l * h, h, 1));
      source.read_bias(e, Lanes, 0, matrix_view<float>(out.data() + e * d, d, 1));
    }
    in_bias_.assign(stream, in);
    out_bias_.assign(stream, out);
  }
  /// Reads and writes the matrices where somebody else has them, in the layout of `layout()`, from now on.
  void borrow(stored* in, stored* out, int device) {
    require_aligned(in, 16, "the matrices of experts");
    require_aligned(out, 16, "the matrices of experts");
    in_ = device_buffer<stored>::borrowed(in, layout_.in_size(), device);
    out_ = device_buffer<stored>::borrowed(out, layout_.out_size(), device);
  }
  /// Writes the weights into a host bank of the same shape: the masters where there are such; waits for the stream.
  template <class Bank>
  void download(const executors::cuda_stream& stream, Bank& bank) const
    requires device_scalar<W>
  {
    std::vector<float> floats[4] = {read_matrix(stream, in_, in_masters_), read_matrix(stream, out_, out_masters_),
                                    std::vector<float>(in_bias_.size()), std::vector<float>(out_bias_.size())};
    in_bias_.read(stream, floats[2]);
    out_bias_.read(stream, floats[3]);
    stream.synchronize();
    layout_.for_each_tensor(bank, [&](matrix_view<float> to, std::size_t first, std::size_t stride, int array) {
      for (std::size_t r = 0; r < to.rows(); ++r)
        for (std::size_t c = 0; c < to.cols(); ++c)
          to(r, c) = floats[array][first + r * stride + c];
    });
  }

  /// Elements of the gradients of in, out, in_bias and out_bias.
  [[nodiscard]] std::array<std::size_t, 4> gradient_sizes() const noexcept {
    return {layout_.in_size(), layout_.out_size(), layout_.in_bias_size(), layout_.out_bias_size()};
  }
  /// The same tensors, those without elements left out.
  void append_tensors(std::vector<device_tensor<W>>& list) const
    requires device_scalar<W>
  {
    list.push_back({in_.data(), nullptr, in_masters_.data(), in_.size(), true});
    list.push_back({out_.data(), nullptr, out_masters_.data(), out_.size(), true});
    if (layout_.has_biases()) {
      list.push_back({nullptr, in_bias_.data(), nullptr, in_bias_.size(), false});
      list.push_back({nullptr, out_bias_.data(), nullptr, out_bias_.size(), false});
    }
  }
  /// bank's tensors += gradients that came back from the device, given as the four arrays.
  template <class Bank> void add_gradients(const std::array<std::vector<float>, 4>& arrays, Bank& gradients) const {
    layout_.for_each_tensor(gradients, [&](matrix_view<float> to, std::size_t first, std::size_t stride, int array) {
      for (std::size_t r = 0; r < to.rows(); ++r)
        for (std::size_t c = 0; c < to.cols(); ++c)
          to(r, c) += arrays[static_cast<std::size_t>(array)][first + r * stride + c];
    });
  }
  /// The reverse: the tensors of a host bank of gradients as the four arrays, padding 0.
  template <class Bank> [[nodiscard]] std::array<std::vector<float>, 4> gradients_of(Bank& gradients) const {
    std::array<std::vector<float>, 4> arrays;
    for (std::size_t i = 0; i < 4; ++i)
      arrays[i].resize(gradient_sizes()[i]);
    layout_.for_each_tensor(gradients, [&](matrix_view<float> from, std::size_t first, std::size_t stride, int array) {
      for (std::size_t r = 0; r < from.rows(); ++r)
        std::ranges::copy(from.row(r), arrays[static_cast<std::size_t>(array)].data() + first + r * stride);
    });
    return arrays;
  }

  [[nodiscard]] ffn_arrays<W> arrays(std::size_t first_expert) const noexcept {
    return {in_.data(),
            out_.data(),
            layout_.has_biases() ? in_bias_.data() : nullptr,
            layout_.has_biases() ? out_bias_.data() : nullptr,
            in_offsets_.data(),
            out_offsets_.data(),
            in_bias_offsets_.data(),
            out_strides_.data(),
            widths_.data(),
            static_cast<index_t>(layout_.size()),
            static_cast<index_t>(first_expert),
            static_cast<index_t>(layout_.d_model()),
            static_cast<index_t>(layout_.in_stride())};
  }

private:
  /// Rows of a matrix that are on the host at a time: their floats, and as they are stored.
  static constexpr std::size_t rows_at_once = 64;

  /// Some rows of a matrix as they are stored, from element `at` on.
  struct stored_part {
    bool in; ///< of W_in
    std::size_t at, stride;
    std::span<const stored> values;
    matrix_view<const float> floats; ///< the same weights, of scalars
  };
  /// f(part) for parts of all matrices in turn: no more than one part is on the host.
  template <class Source, class F> void for_each_part(const Source& source, const F& f) const {
    std::vector<float> floats;
    std::vector<stored> values;
    for (std::size_t e = 0; e < layout_.size(); ++e)
      for (std::size_t m = 0; m <= Lanes; ++m) {
        const bool in = m < Lanes;
        const std::size_t rows = in ? layout_[e].width : layout_.d_model(),
                          cols = in ? layout_.d_model() : layout_[e].width, stride = row_elements<W>(cols);
        if constexpr (weight_block<W>) {
          if (m == 0 || !in)
            for_each_cell_part(source, e, m, rows, cols, values, f);
        } else {
          for (std::size_t first = 0; first < rows; first += rows_at_once) {
            const std::size_t count = std::min(rows_at_once, rows - first);
            values.resize(count * stride);
            floats.resize(count * cols);
            const matrix_view<float> part(floats.data(), count, cols);
            source.read(e, m, first, part);
            for (std::size_t r = 0; r < count; ++r)
              store_row(vector_view<const float>(part.row(r)), values.data() + r * stride, name_of(in));
            f(stored_part{in, (in ? layout_[e].in + m * rows * stride : layout_[e].out) + first * stride, stride,
                          values, part});
          }
        }
      }
  }
  /// The same for one matrix in cells, or for W_in, whose cells have rows of all lanes: m is the first of them.
  template <class Source, class F>
  void for_each_cell_part(const Source& source, std::size_t e, std::size_t m, std::size_t rows, std::size_t cols,
                          std::vector<stored>& cells, const F& f) const {
    const std::size_t lanes = m < Lanes ? Lanes : 1, units = cell_rows / lanes, stride = row_elements<W>(cols);
    std::vector<float> floats;
    std::vector<W> blocks;
    for (std::size_t first = 0; first < rows; first += rows_at_once / lanes) {
      const std::size_t count = std::min(rows_at_once / lanes, rows - first);
      cells.assign(stored_rows<W>(count, lanes) * stride, stored{});
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        blocks.resize(count * stride);
        if (!take_blocks(source, e, m + lane, first, count, blocks.data())) {
          floats.resize(count * cols);
          const matrix_view<float> part(floats.data(), count, cols);
          source.read(e, m + lane, first, part);
          for (std::size_t r = 0; r < count; ++r)
            store_row(vector_view<const float>(part.row(r)), blocks.data() + r * stride, name_of(m < Lanes));
        }
        for (std::size_t r = 0; r < count; ++r)
          for (std::size_t b = 0; b < stride; ++b)
            cells[r / units * stride + b].set(lane * units + r % units, blocks[r * stride + b]);
      }
      f(stored_part{m < Lanes, (m < Lanes ? layout_[e].in : layout_[e].out) + first / units * stride, stride, cells,
                    matrix_view<const float>(nullptr, 0, cols)});
    }
  }
  [[nodiscard]] static std::string_view name_of(bool in) noexcept {
    return in ? "a weight of the first projection" : "a weight of the second projection";
  }
  template <class Source>
  static bool take_blocks(const Source& source, std::size_t e, std::size_t m, std::size_t first, std::size_t rows,
                          W* to) {
    if constexpr (experts::block_weight_source<Source, W>)
      if (source.template has_blocks<W>(e, m)) {
        source.read_blocks(e, m, first, rows, to);
        return true;
      }
    return false;
  }
  [[nodiscard]] static matrix_view<float, device_space> device_rows(float* data, std::size_t rows, std::size_t cols,
                                                                    std::size_t stride) noexcept {
    return {data, rows, cols, stride};
  }
  /// The masters of a matrix, or its values; waits for the stream.
  [[nodiscard]] static std::vector<float> read_matrix(const executors::cuda_stream& stream,
                                                      const device_buffer<W>& values,
                                                      const device_buffer<float>& masters) {
    std::vector<float> floats(values.size());
    if (masters.size() != 0) {
      masters.read(stream, floats);
      return floats;
    }
    std::vector<W> stored(values.size());
    values.read(stream, stored);
    stream.synchronize();
    std::ranges::transform(stored, floats.begin(), [](W value) { return static_cast<float>(value); });
    return floats;
  }

  ffn_layout layout_;
  device_buffer<stored> in_, out_;
  device_buffer<float> in_masters_, out_masters_; ///< empty unless kept
  device_buffer<float> in_bias_, out_bias_;
  device_buffer<std::size_t> in_offsets_, out_offsets_, in_bias_offsets_;
  device_buffer<index_t> out_strides_, widths_;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
