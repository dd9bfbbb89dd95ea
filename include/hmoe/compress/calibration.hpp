// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>

#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// Sums over the rows of one neuron: a is its activated value in a row, u what the layer multiplies the expert's output
/// by (the row's weight, or 1 where weights are on the input), w = down[:, i], g = ∂L/∂(expert output) = u · ∂L/∂y.
struct neuron_sums {
  double activation = 0;       ///< Σ |a|
  double squared = 0;          ///< Σ a²
  double weighted_squared = 0; ///< Σ u² a²
  double gradient = 0;         ///< Σ (gᵀw)², over the rows of gradient passes
  double effect = 0;           ///< Σ (gᵀw a)², over the rows of gradient passes
  double gradient_squared = 0; ///< Σ a², over the rows of gradient passes
};

/// Sums over the rows of one expert: o is its output in a row, before weighting, u as above.
struct expert_sums {
  std::size_t rows = 0;
  std::size_t gradient_rows = 0;       ///< of gradient passes
  double weighted_norm = 0;            ///< Σ u ‖o‖
  double weight_squared = 0;           ///< Σ u²
  double weighted_square = 0;          ///< Σ u² ‖o‖²
  std::vector<double> output;          ///< [d] Σ o
  std::vector<double> weighted_output; ///< [d] Σ u² o
  std::vector<neuron_sums> neurons;    ///< empty for experts without neurons (see neuron_bank)
};

/// What importance of experts and neurons is computed from: sums over the passes of calibration tokens through one
/// layer, whose parameters must not change meanwhile.
///   layer.forward(ctx, x, y, tape); calibration.add(layer, tape);                          // each batch
///   layer.backward(ctx, tape, dy, dx, gradients); calibration.add_gradient(ctx, layer, tape, dy);   // where needed
/// Everything comes from the tape: no further pass of the layer is run. Sums are in double, so batches in the same
/// order give the same bits. Memory: about 2d + 6h doubles for an expert of width h.
class calibration {
public:
  template <class Layer> explicit calibration(const Layer& layer) : d_model_(layer.d_model()) {
    experts_.resize(layer.size());
    for (expert_sums& sums : experts_) {
      sums.output.resize(d_model_);
      sums.weighted_output.resize(d_model_);
    }
    layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
      if constexpr (neuron_bank<Bank>)
        for (std::size_t i = 0; i < ids.size(); ++i)
          experts_[ids[i]].neurons.resize(bank.width(i));
    });
  }

  /// Tokens of all batches, without padding tokens; those of gradient passes.
  [[nodiscard]] std::size_t tokens() const noexcept { return tokens_; }
  [[nodiscard]] std::size_t gradient_tokens() const noexcept { return gradient_tokens_; }
  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] const expert_sums& expert(std::size_t e) const noexcept { return experts_[e]; }
  /// Rows of an expert for each token.
  [[nodiscard]] double load(std::size_t e) const noexcept {
    return tokens_ == 0 ? 0.0 : static_cast<double>(experts_[e].rows) / static_cast<double>(tokens_);
  }

  /// Adds a forward pass that `tape` recorded. hmoe::error for a tape without one, for a layer of another shape, and
  /// for dispatch::dense, which keeps no plan.
  template <class Layer, class T> void add(const Layer& layer, tape<T>& tape) {
    check(layer, tape);
    for_each_row(tape, [&](std::size_t e, std::size_t slot, double u, std::size_t) {
      expert_sums& sums = experts_[e];
      const auto out = std::as_const(tape).expert_output().row(slot);
      double squares = 0;
      for (std::size_t i = 0; i < d_model_; ++i) {
        const auto o = static_cast<double>(out[i]);
        squares += o * o;
        sums.output[i] += o;
        sums.weighted_output[i] += u * u * o;
      }
      ++sums.rows;
      sums.weighted_norm += u * std::sqrt(squares);
      sums.weight_squared += u * u;
      sums.weighted_square += u * u * squares;
    });
    for_each_neuron_bank(layer, tape, [&](const auto&, std::size_t, std::size_t e, auto activated) {
      std::size_t row = 0;
      for_each_row_of(tape, e, [&](std::size_t, double u, std::size_t) {
        for (std::size_t i = 0; i < activated.cols(); ++i) {
          const auto a = static_cast<double>(activated(row, i));
          neuron_sums& n = experts_[e].neurons[i];
          n.activation += std::abs(a);
          n.squared += a * a;
          n.weighted_squared += u * u * a * a;
        }
        ++row;
      });
    });
    tokens_ += std::as_const(tape).assignment().valid_tokens();
  }

  /// Adds the gradient of the same pass, dy = ∂L/∂y [T×d]. One product per expert, [rows × d] · down, by the context's
  /// backend.
  template <execution_context Context, class Layer, class T>
  void add_gradient(const Context& ctx, const Layer& layer, tape<T>& tape,
                    std::type_identity_t<matrix_view<const T>> dy) {
    check(layer, tape);
    require(dy.rows() == tape.input().rows() && dy.cols() == d_model_, "dy is ", dy.rows(), " x ", dy.cols(),
            ", needed is ", tape.input().rows(), " x ", d_model_);
    for_each_neuron_bank(layer, tape, [&](const auto& bank, std::size_t local, std::size_t e, auto activated) {
      matrix<T> g(activated.rows(), d_model_), products(activated.rows(), activated.cols());
      std::size_t row = 0;
      for_each_row_of(tape, e, [&](std::size_t, double u, std::size_t token) {
        for (std::size_t i = 0; i < d_model_; ++i)
          g(row, i) = static_cast<T>(u) * dy(token, i);
        ++row;
      });
      ctx.backend().multiply(matrix_view<const T>(g).row_block(0, row), bank.weights().output(local),
                             products.view().row_block(0, row));
      for (std::size_t r = 0; r < row; ++r)
        for (std::size_t i = 0; i < activated.cols(); ++i) {
          const auto a = static_cast<double>(activated(r, i)), p = static_cast<double>(products(r, i));
          neuron_sums& n = experts_[e].neurons[i];
          n.gradient += p * p;
          n.effect += p * p * a * a;
          n.gradient_squared += a * a;
        }
      experts_[e].gradient_rows += row;
    });
    gradient_tokens_ += std::as_const(tape).assignment().valid_tokens();
  }

private:
  template <class Layer, class T> void check(const Layer& layer, const tape<T>& tape) const {
    require(layer.size() == experts_.size() && layer.d_model() == d_model_, "the calibration is of a layer with ",
            experts_.size(), " experts and d_model ", d_model_, ", this one has ", layer.size(), " and ",
            layer.d_model());
    require(tape.recording() && tape.complete(),
            "calibration needs a tape that a forward pass has filled: layer.forward(ctx, x, y, tape)");
    require(tape.plan().expert_count() == experts_.size() && tape.expert_output().rows() == tape.plan().size(),
            "the tape's plan is of ", tape.plan().expert_count(), " experts, the layer has ", experts_.size(),
            ": calibrate with another dispatch strategy than dispatch::dense, which keeps no plan");
    layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
      if constexpr (neuron_bank<Bank>)
        for (std::size_t i = 0; i < ids.size(); ++i)
          require(bank.width(i) == experts_[ids[i]].neurons.size(), "the calibration is of a layer whose expert ",
                  ids[i], " has width ", experts_[ids[i]].neurons.size(), ", this one's has ", bank.width(i));
    });
  }

  /// f(slot, u, token) for each row of expert e that belongs to a token; those of padding stand behind them.
  template <class T, class F> static void for_each_row_of(const tape<T>& tape, std::size_t e, const F& f) {
    const plan& by_expert = tape.plan();
    for (std::size_t slot = by_expert.offsets()[e]; slot < by_expert.offsets()[e + 1]; ++slot) {
      const index_t token = by_expert.tokens()[slot];
      if (token == no_index)
        continue;
      const double u =
          tape.weights_on_input() ? 1.0 : static_cast<double>(tape.assignment().weights()[by_expert.entries()[slot]]);
      f(slot, u, token);
    }
  }
  template <class T, class F> void for_each_row(const tape<T>& tape, const F& f) const {
    for (std::size_t e = 0; e < experts_.size(); ++e)
      for_each_row_of(tape, e, [&](std::size_t slot, double u, std::size_t token) { f(e, slot, u, token); });
  }
  /// f(bank, local id, id, activated [rows × h]) for each expert with neurons and rows.
  template <class Layer, class T, class F>
  static void for_each_neuron_bank(const Layer& layer, tape<T>& tape, const F& f) {
    layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
      if constexpr (neuron_bank<Bank>)
        for (std::size_t i = 0; i < ids.size(); ++i) {
          const std::size_t rows = tape.plan().rows_of(ids[i]), h = bank.width(i);
          if (rows == 0 || h == 0)
            continue;
          f(bank, i, ids[i],
            matrix_view<const T>(tape.activations(ids[i], rows).column_block(bank.saved_per_row(i) - h, h)));
        }
    });
  }

  std::size_t d_model_, tokens_ = 0, gradient_tokens_ = 0;
  std::vector<expert_sums> experts_;
};

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
