// SPDX-License-Identifier: MIT
#pragma once

#include "parallel.hpp"
#include "rotary.hpp"
#include "tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace language_model {

/// Causal self-attention with several heads, rotary positions and no biases:
/// y = W_o · concat_h softmax(rot(q_h) rot(k_h)ᵀ / √head_size + causal mask) v_h, with (q, k, v) = W_qkv · x.
///
/// Forward and backward work on one sequence (its rows of the batch), so a batch parallelises over sequences.
template <class T> class attention {
public:
  /// What forward keeps for backward, for a whole batch.
  struct activations {
    matrix<T> qkv;           ///< [tokens × 3d], queries and keys already rotated
    matrix<T> probabilities; ///< [sequences · heads · context × context]
    matrix<T> mixed;         ///< [tokens × d], the heads' outputs before W_o
    matrix<T> dqkv;          ///< [tokens × 3d], written by backward
    matrix<T> dscores;       ///< [sequences · context × context], scratch of backward

    activations(std::size_t sequences, std::size_t context, std::size_t d, std::size_t heads)
        : qkv(to_index(sequences * context), to_index(3 * d)),
          probabilities(to_index(sequences * heads * context), to_index(context)),
          mixed(to_index(sequences * context), to_index(d)), dqkv(qkv.rows(), qkv.cols()),
          dscores(to_index(sequences * context), to_index(context)) {}
  };

  attention(std::size_t d, std::size_t heads, std::size_t context)
      : d_(to_index(d)), heads_(to_index(heads)), head_size_(d_ / heads_), context_(to_index(context)),
        scale_(T(1) / std::sqrt(static_cast<T>(head_size_))), rotary_(context, d / heads), qkv_(3 * d, d),
        output_(d, d) {}

  /// y += attention(x) for sequence s; x and y are that sequence's rows.
  void forward(std::size_t s, const const_rows_ref<T>& x, activations& a, rows_ref<T> y) const {
    auto qkv = a.qkv.middleRows(first_row(s), context_);
    qkv.noalias() = x * qkv_.value.transpose();
    rotary_.rotate(qkv.leftCols(2 * d_));
    auto mixed = a.mixed.middleRows(first_row(s), context_);
    for (Eigen::Index h = 0; h < heads_; ++h) {
      const auto q = head_of(qkv, h);
      const auto k = head_of(qkv, heads_ + h);
      const auto v = head_of(qkv, 2 * heads_ + h);
      auto p = probabilities(a, s, h);
      for (Eigen::Index row = 0; row < context_; row += row_block) {
        const Eigen::Index rows = std::min(row_block, context_ - row);
        const Eigen::Index visible = row + rows;
        auto scores = p.block(row, 0, rows, visible);
        scores.noalias() = q.middleRows(row, rows) * k.topRows(visible).transpose();
        causal_softmax(scores, row);
        mixed.block(row, h * head_size_, rows, head_size_).noalias() = scores * v.topRows(visible);
      }
    }
    y.noalias() += mixed * output_.value.transpose();
  }

  /// dx = the gradient with respect to forward's x, for sequence s. Weight gradients wait for accumulate().
  void backward(std::size_t s, activations& a, const const_rows_ref<T>& dy, rows_ref<T> dx) const {
    const auto qkv = a.qkv.middleRows(first_row(s), context_);
    auto dqkv = a.dqkv.middleRows(first_row(s), context_);
    const matrix<T> dmixed = dy * output_.value;
    dqkv.setZero();
    for (Eigen::Index h = 0; h < heads_; ++h) {
      const auto q = head_of(qkv, h);
      const auto k = head_of(qkv, heads_ + h);
      const auto v = head_of(qkv, 2 * heads_ + h);
      auto dq = head_of(dqkv, h);
      auto dk = head_of(dqkv, heads_ + h);
      auto dv = head_of(dqkv, 2 * heads_ + h);
      const auto dout = head_of(dmixed, h);
      const auto p = probabilities(a, s, h);
      for (Eigen::Index row = 0; row < context_; row += row_block) {
        const Eigen::Index rows = std::min(row_block, context_ - row);
        const Eigen::Index visible = row + rows;
        const auto block = p.block(row, 0, rows, visible);
        auto ds = a.dscores.block(first_row(s) + row, 0, rows, visible);
        ds.noalias() = dout.middleRows(row, rows) * v.topRows(visible).transpose();
        for (Eigen::Index i = 0; i < rows; ++i) {
          const T mean = ds.row(i).dot(block.row(i));
          ds.row(i).array() = block.row(i).array() * (ds.row(i).array() - mean) * scale_;
        }
        dv.topRows(visible).noalias() += block.transpose() * dout.middleRows(row, rows);
        dq.middleRows(row, rows).noalias() = ds * k.topRows(visible);
        dk.topRows(visible).noalias() += ds.transpose() * q.middleRows(row, rows);
      }
    }
    rotary_.rotate_back(dqkv.leftCols(2 * d_));
    dx.noalias() = dqkv * qkv_.value;
  }

  /// Weight gradients over the whole batch; x and dy are what forward and backward were given.
  void accumulate(std::size_t threads, const matrix<T>& x, const activations& a, const matrix<T>& dy) {
    add_weight_gradient(threads, a.dqkv, x, qkv_.gradient);
    add_weight_gradient(threads, dy, a.mixed, output_.gradient);
  }

  weight<T>& qkv() { return qkv_; }
  weight<T>& output() { return output_; }

private:
  /// Rows of scores at a time: keys after the block are never touched, which saves near half of the square.
  static constexpr Eigen::Index row_block = 32;

  Eigen::Index first_row(std::size_t s) const { return to_index(s) * context_; }

  template <class Rows> auto head_of(Rows& rows, Eigen::Index h) const {
    return rows.middleCols(h * head_size_, head_size_);
  }

  template <class Activations> auto probabilities(Activations& a, std::size_t s, Eigen::Index h) const {
    return a.probabilities.middleRows((to_index(s) * heads_ + h) * context_, context_);
  }

  /// Row i of the block belongs to position first + i and sees keys 0 … first + i.
  template <class Block> void causal_softmax(Block& scores, Eigen::Index first) const {
    for (Eigen::Index i = 0; i < scores.rows(); ++i) {
      const Eigen::Index visible = first + i + 1;
      auto row = scores.row(i).head(visible).array();
      row = ((row - row.maxCoeff()) * scale_).exp();
      row *= T(1) / row.sum();
      scores.row(i).tail(scores.cols() - visible).setZero();
    }
  }

  Eigen::Index d_;
  Eigen::Index heads_;
  Eigen::Index head_size_;
  Eigen::Index context_;
  T scale_;
  rotary_embedding<T> rotary_;
  weight<T> qkv_;    ///< [3d × d]: queries, keys, values
  weight<T> output_; ///< [d × d]
};

} // namespace language_model
