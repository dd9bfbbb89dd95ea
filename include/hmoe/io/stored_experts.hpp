// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/stored_matrix.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace hmoe::io {

/// The tensors of one feed-forward expert in a file: the lanes [h × d] (gate and up, or up alone), the output matrix
/// [d × h], and the biases of their rows (stored_matrix::column), where there are such.
template <std::size_t Lanes> struct stored_expert {
  std::array<std::optional<stored_matrix>, Lanes + 1> matrices; ///< none: an expert of width 0
  std::array<std::optional<stored_matrix>, Lanes + 1> biases{};
};

/// Feed-forward experts in files, of any widths, as an experts::weight_source: simd::pack reads them from the mapped
/// file panel by panel, and the layer never lies in memory as floats. Where some biases are given and others not, those
/// are 0. The file must outlive it.
template <std::size_t Lanes> class stored_experts {
public:
  static constexpr std::size_t lanes = Lanes;

  /// hmoe::error where there is no expert, or shapes do not fit d_model and one another.
  stored_experts(std::size_t d_model, std::vector<stored_expert<Lanes>> experts)
      : d_model_(d_model), experts_(std::move(experts)) {
    require(d_model >= 1 && !experts_.empty(), "experts of a file: there are ", experts_.size(), ", with d_model ",
            d_model, ": at least 1 is needed of both");
    for (std::size_t e = 0; e < size(); ++e)
      for (std::size_t m = 0; m <= Lanes; ++m) {
        const std::size_t rows = m < Lanes ? width(e) : d_model_, cols = m < Lanes ? d_model_ : width(e);
        require(experts_[e].matrices[m].has_value() || width(e) == 0, "expert ", e, " of a file lacks matrix ", m,
                " of ", Lanes + 1);
        if (const auto& given = experts_[e].matrices[m])
          require(given->rows() == rows && given->cols() == cols, "expert ", e, " of a file: matrix ", m, " is ",
                  given->rows(), " x ", given->cols(), ", needed is ", rows, " x ", cols);
        if (const auto& bias = experts_[e].biases[m]) {
          require(bias->rows() == rows && bias->cols() == 1, "expert ", e, " of a file: the bias of matrix ", m,
                  " has ", bias->rows(), " values in ", bias->cols(), " columns, needed are ", rows, " in one");
          has_biases_ = true;
        }
      }
  }

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept {
    const auto& up = experts_[e].matrices[Lanes - 1];
    return up ? up->rows() : 0;
  }
  [[nodiscard]] bool has_biases() const noexcept { return has_biases_; }

  void read(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const {
    if (to.size() != 0)
      experts_[e].matrices[m]->read(first, to);
  }
  void read_bias(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const {
    if (const auto& bias = experts_[e].biases[m])
      bias->read(first, to);
    else
      for (std::size_t r = 0; r < to.rows(); ++r)
        to(r, 0) = 0;
  }
  template <class Block> [[nodiscard]] bool has_blocks(std::size_t e, std::size_t m) const noexcept {
    const auto& matrix = experts_[e].matrices[m];
    return matrix && matrix->template has_blocks<Block>();
  }
  template <class Block>
  void read_blocks(std::size_t e, std::size_t m, std::size_t first, std::size_t rows, Block* to) const {
    if (const auto& matrix = experts_[e].matrices[m])
      matrix->read_blocks(first, rows, to);
  }

private:
  std::size_t d_model_;
  std::vector<stored_expert<Lanes>> experts_;
  bool has_biases_ = false;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
