// SPDX-License-Identifier: MIT
#pragma once

#ifdef LANGUAGE_MODEL_WITHOUT_OPTIMISATION
#error                                                                                                                 \
    "this source is compiled without optimisation, and the linker takes one copy of a template's functions, maybe these: keep the model out of it"
#endif

#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>

#include "attention.hpp"
#include "cross_entropy.hpp"
#include "feed_forward.hpp"
#include "model_shape.hpp"
#include "parallel.hpp"
#include "rms_norm.hpp"
#include "tensor.hpp"
#include "token.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// A decoder in LLaMA's style: token embedding; blocks of x += attention(norm(x)), x += feed_forward(norm(x)); a
/// last norm and an untied head. Works on batches of `sequences` windows of `context` tokens; all activations are
/// allocated once. Gradients are written by hand: parameters add up (+=), activations are overwritten.
template <class T> class decoder {
public:
  using layers = std::vector<std::unique_ptr<feed_forward<T>>>;

  /// One feed-forward layer per block. `processes` work on as many sequences each: gradients are of the mean loss of
  /// all.
  decoder(const model_shape& shape, layers feed_forwards, std::size_t sequences, std::size_t threads,
          std::size_t processes = 1)
      : shape_(shape), sequences_(sequences), threads_(threads), processes_(processes),
        tokens_(to_index(sequences * shape.context)), embedding_(shape.vocabulary, shape.d_model),
        last_norm_(shape.d_model), head_(shape.vocabulary, shape.d_model), last_(*this),
        logits_(tokens_, to_index(shape.vocabulary)), dx_(tokens_, to_index(shape.d_model)),
        dn_(tokens_, to_index(shape.d_model)), token_losses_(to_size(tokens_)), token_ids_(to_size(tokens_)) {
    validate(shape);
    hmoe::require(feed_forwards.size() == shape.blocks, "a decoder of ", shape.blocks, " blocks was given ",
                  feed_forwards.size(), " feed-forward layers");
    blocks_.reserve(shape.blocks);
    for (std::size_t s = 0; s <= sequences; ++s)
      sequence_offsets_.push_back(static_cast<hmoe::index_t>(s * shape.context));
    for (auto& layer : feed_forwards)
      blocks_.emplace_back(*this, std::move(layer));
  }

  decoder(const decoder&) = delete;
  decoder& operator=(const decoder&) = delete;

  /// Standard deviations: 1/√fan-in; output projections also /√(2 · blocks), so that the residual stream does not
  /// grow with depth; embedding 1/√d; head 0.02.
  void initialize(hmoe::seed seed) {
    const double d = static_cast<double>(shape_.d_model);
    const double output_gain = 1.0 / std::sqrt(2.0 * static_cast<double>(shape_.blocks));
    std::uint64_t stream = 0;
    const auto fill = [&](weight<T>& w, double deviation) {
      hmoe::fill_normal(hmoe::vector_view<T>(w.value.data(), to_size(w.value.size())), deviation, seed, stream++);
    };
    fill(embedding_, 1.0 / std::sqrt(d));
    fill(head_, 0.02);
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      fill(blocks_[b].mixer.qkv(), 1.0 / std::sqrt(d));
      fill(blocks_[b].mixer.output(), output_gain / std::sqrt(d));
      blocks_[b].layer->initialize(layer_key(seed, 0, b), output_gain);
    }
  }

  std::vector<hmoe::parameter<T>> parameters() {
    std::vector<hmoe::parameter<T>> list;
    embedding_.append_parameter(list, "embedding");
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      const std::string prefix = "blocks." + std::to_string(b) + ".";
      blocks_[b].mixer_norm.gain().append_parameter(list, prefix + "attention_norm", false);
      blocks_[b].mixer.qkv().append_parameter(list, prefix + "attention.qkv");
      blocks_[b].mixer.output().append_parameter(list, prefix + "attention.output");
      blocks_[b].layer_norm.gain().append_parameter(list, prefix + "feed_forward_norm", false);
      blocks_[b].layer->append_parameters(list, prefix + "feed_forward.");
    }
    last_norm_.gain().append_parameter(list, "norm", false);
    head_.append_parameter(list, "head");
    return list;
  }

  /// Mean loss in nats of predicting targets[i] after inputs[… i]; both hold sequences · context tokens.
  double evaluate(std::span<const token> inputs, std::span<const token> targets) {
    forward(inputs);
    predict(targets, T(0));
    return mean_token_loss();
  }

  struct losses {
    double task;      ///< mean cross entropy in nats of this process's tokens
    double auxiliary; ///< all auxiliary losses, summed over layers
  };

  /// The same with gradients: adds those of task + auxiliary to every parameter's, or of the task alone. `noise` is for
  /// routers that draw it.
  losses accumulate_gradients(std::span<const token> inputs, std::span<const token> targets,
                              const std::optional<hmoe::noise_source>& noise = {}, bool with_auxiliary = true) {
    forward(inputs, noise);
    predict(targets, T(1) / static_cast<T>(to_size(tokens_) * processes_));
    double auxiliary = 0.0;
    for (std::size_t b = 0; b < blocks_.size() && with_auxiliary; ++b)
      auxiliary += blocks_[b].layer->add_auxiliary_losses();
    backward(inputs);
    return {mean_token_loss(), auxiliary};
  }

  /// Loss of each token of the last batch.
  std::span<const T> token_losses() const { return token_losses_; }

  /// Logits after one window of tokens, shorter ones padded at the end, where causal attention cannot see them.
  std::span<const T> next_token_logits(std::span<const token> window) {
    hmoe::require(sequences_ == 1 && !window.empty() && window.size() <= shape_.context, "a window of ", window.size(),
                  " tokens was given to a decoder for ", sequences_, " windows of at most ", shape_.context, " tokens");
    std::vector<token> padded(window.begin(), window.end());
    padded.resize(shape_.context, 0);
    forward(padded);
    apply_head(0);
    return {logits_.row(to_index(window.size() - 1)).data(), shape_.vocabulary};
  }

  const model_shape& shape() const { return shape_; }
  std::size_t sequences() const { return sequences_; }
  std::size_t processes() const { return processes_; }
  const feed_forward<T>& layer(std::size_t index) const { return *blocks_[index].layer; }
  feed_forward<T>& layer(std::size_t index) { return *blocks_[index].layer; }

  /// Weights of all routers.
  std::size_t router_weights() const {
    std::size_t sum = 0;
    for (const auto& b : blocks_)
      sum += b.layer->router_weights();
    return sum;
  }

private:
  /// A norm's input, output and scale; gain gradients wait here per sequence until they are added up in order.
  struct norm_activations {
    matrix<T> x;
    matrix<T> y;
    typename rms_norm<T>::inverse_rms inverse;
    matrix<T> dgain;

    explicit norm_activations(const decoder& m)
        : x(m.tokens_, to_index(m.shape_.d_model)), y(m.tokens_, to_index(m.shape_.d_model)), inverse(m.tokens_),
          dgain(to_index(m.sequences_), to_index(m.shape_.d_model)) {}
  };

  struct block {
    rms_norm<T> mixer_norm;
    attention<T> mixer;
    rms_norm<T> layer_norm;
    std::unique_ptr<feed_forward<T>> layer;
    norm_activations mixer_in;
    typename attention<T>::activations mixed;
    norm_activations layer_in;

    block(const decoder& m, std::unique_ptr<feed_forward<T>> feed_forward_layer)
        : mixer_norm(m.shape_.d_model), mixer(m.shape_.d_model, m.shape_.heads, m.shape_.context),
          layer_norm(m.shape_.d_model), layer(std::move(feed_forward_layer)), mixer_in(m),
          mixed(m.sequences_, m.shape_.context, m.shape_.d_model, m.shape_.heads), layer_in(m) {}
  };

  auto rows_of(matrix<T>& m, std::size_t sequence) const {
    const Eigen::Index context = to_index(shape_.context);
    return m.middleRows(to_index(sequence) * context, context);
  }

  /// A key of its own, far from those of neighbouring seeds: each layer numbers its streams from 0 again.
  static hmoe::seed layer_key(hmoe::seed seed, std::uint64_t use, std::size_t b) {
    const auto key = hmoe::philox::generate(seed, ~use, b);
    return hmoe::seed{std::uint64_t{key[0]} << 32U | key[1]};
  }

  void normalise(const rms_norm<T>& norm, norm_activations& a, std::size_t s) const {
    const Eigen::Index context = to_index(shape_.context);
    norm.forward(rows_of(a.x, s), a.inverse.segment(to_index(s) * context, context), rows_of(a.y, s));
  }

  /// dx_ += gradient through the norm, for the rows of sequence s, given dn_.
  void normalise_backward(const rms_norm<T>& norm, norm_activations& a, std::size_t s) {
    const Eigen::Index context = to_index(shape_.context);
    norm.backward(rows_of(a.x, s), a.inverse.segment(to_index(s) * context, context), rows_of(dn_, s), rows_of(dx_, s),
                  a.dgain.middleRows(to_index(s), 1));
  }

  /// What the layer of block b may look at besides its tokens.
  hmoe::routing_inputs<T> routing_inputs(std::size_t b, const std::optional<hmoe::noise_source>& noise) {
    hmoe::routing_inputs<T> inputs;
    if (noise)
      inputs.noise = {layer_key(noise->key, 1, b), noise->step};
    inputs.token_ids = {token_ids_.data(), token_ids_.size()};
    inputs.sequence_offsets = {sequence_offsets_.data(), sequence_offsets_.size()};
    inputs.previous = b > 0 ? &blocks_[b - 1].layer->trace() : nullptr;
    return inputs;
  }

  void forward(std::span<const token> inputs, const std::optional<hmoe::noise_source>& noise = {}) {
    hmoe::require(to_index(inputs.size()) == tokens_, "a batch of ", inputs.size(), " tokens was given where ", tokens_,
                  " were expected");
    auto& first = blocks_.front().mixer_in.x;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      hmoe::require(inputs[i] < shape_.vocabulary, "token ", inputs[i], " is outside the vocabulary of ",
                    shape_.vocabulary);
      first.row(to_index(i)) = embedding_.value.row(inputs[i]);
      token_ids_[i] = inputs[i];
    }
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      block& m = blocks_[b];
      parallel_for(threads_, sequences_, [&](std::size_t s) {
        normalise(m.mixer_norm, m.mixer_in, s);
        rows_of(m.layer_in.x, s) = rows_of(m.mixer_in.x, s);
        m.mixer.forward(s, rows_of(m.mixer_in.y, s), m.mixed, rows_of(m.layer_in.x, s));
        normalise(m.layer_norm, m.layer_in, s);
      });
      auto& next = b + 1 < blocks_.size() ? blocks_[b + 1].mixer_in.x : last_.x;
      m.layer->forward(m.layer_in.y, next, routing_inputs(b, noise));
      next += m.layer_in.x;
    }
  }

  void apply_head(std::size_t s) {
    normalise(last_norm_, last_, s);
    rows_of(logits_, s).noalias() = rows_of(last_.y, s) * head_.value.transpose();
  }

  /// Losses of all tokens; with a scale also the gradient up to the head's input, in dx_ (and dlogits in logits_).
  void predict(std::span<const token> targets, T scale) {
    hmoe::require(to_index(targets.size()) == tokens_, "a batch has ", tokens_, " tokens but ", targets.size(),
                  " targets");
    const std::size_t context = shape_.context;
    parallel_for(threads_, sequences_, [&](std::size_t s) {
      apply_head(s);
      cross_entropy<T>(rows_of(logits_, s), targets.subspan(s * context, context), scale,
                       std::span<T>(token_losses_).subspan(s * context, context));
      if (scale == T(0))
        return;
      rows_of(dn_, s).noalias() = rows_of(logits_, s) * head_.value;
      rows_of(dx_, s).setZero();
      normalise_backward(last_norm_, last_, s);
    });
  }

  void backward(std::span<const token> inputs) {
    add_weight_gradient(threads_, logits_, last_.y, head_.gradient);
    add_gain_gradient(last_norm_, last_);
    for (std::size_t b = blocks_.size(); b-- > 0;) {
      block& m = blocks_[b];
      m.layer->backward(dx_, dn_);
      parallel_for(threads_, sequences_, [&](std::size_t s) {
        normalise_backward(m.layer_norm, m.layer_in, s);
        m.mixer.backward(s, m.mixed, rows_of(dx_, s), rows_of(dn_, s));
      });
      m.mixer.accumulate(threads_, m.mixer_in.y, m.mixed, dx_);
      parallel_for(threads_, sequences_, [&](std::size_t s) { normalise_backward(m.mixer_norm, m.mixer_in, s); });
      add_gain_gradient(m.layer_norm, m.layer_in);
      add_gain_gradient(m.mixer_norm, m.mixer_in);
    }
    for (std::size_t i = 0; i < inputs.size(); ++i)
      embedding_.gradient.row(inputs[i]) += dx_.row(to_index(i));
  }

  void add_gain_gradient(rms_norm<T>& norm, const norm_activations& a) {
    for (Eigen::Index s = 0; s < a.dgain.rows(); ++s)
      norm.gain().gradient.row(0) += a.dgain.row(s);
  }

  double mean_token_loss() const {
    double sum = 0.0;
    for (const T loss : token_losses_)
      sum += static_cast<double>(loss);
    return sum / static_cast<double>(token_losses_.size());
  }

  model_shape shape_;
  std::size_t sequences_;
  std::size_t threads_;
  std::size_t processes_;
  Eigen::Index tokens_;
  weight<T> embedding_;
  std::vector<block> blocks_;
  rms_norm<T> last_norm_;
  weight<T> head_;
  norm_activations last_;
  matrix<T> logits_;
  matrix<T> dx_; ///< gradient of the residual stream
  matrix<T> dn_; ///< gradient of a norm's output
  std::vector<T> token_losses_;
  std::vector<hmoe::index_t> token_ids_;
  std::vector<hmoe::index_t> sequence_offsets_;
};

} // namespace language_model
