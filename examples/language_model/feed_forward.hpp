// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/io/routing_log.hpp>

#include "tensor.hpp"

#include <span>
#include <string>
#include <vector>

namespace language_model {

/// What the decoder asks of a feed-forward layer. The layers of hmoe are a type per router; behind this interface
/// one decoder takes them all, and a virtual call per layer and step costs nothing beside the products within.
template <class T> class feed_forward {
public:
  feed_forward() = default;
  feed_forward(const feed_forward&) = delete;
  feed_forward& operator=(const feed_forward&) = delete;
  virtual ~feed_forward() = default;

  /// Draws all parameters; output_gain scales the output projections.
  virtual void initialize(hmoe::seed seed, double output_gain) = 0;

  /// y = layer(x), one row per token; keeps what the calls below need. `inputs` (token ids, noise, the previous layer)
  /// must stay until backward.
  virtual void forward(const matrix<T>& x, matrix<T>& y, const hmoe::routing_inputs<T>& inputs) = 0;

  /// Value of the auxiliary losses for the last forward pass. Their gradients join those of the next backward.
  virtual double add_auxiliary_losses() = 0;

  /// dx = gradient with respect to x; parameter gradients are added to.
  virtual void backward(const matrix<T>& dy, matrix<T>& dx) = 0;

  /// Once per training step, after the optimiser: moves what has a rule of its own instead of a gradient, such as
  /// selection biases, by what the step's batch was routed to.
  virtual void after_step() = 0;

  virtual void append_parameters(std::vector<hmoe::parameter<T>>& list, const std::string& prefix) = 0;

  /// What after_step moves besides parameters; empty for most layers. Part of a checkpoint.
  virtual std::vector<double> state() const = 0;
  virtual void restore(std::span<const double> state) = 0;

  /// Which experts the tokens of the last forward pass went to.
  virtual const hmoe::assignment<T>& assignment() const = 0;

  /// The same as a record of a routing log, of layer 0 and step 0 yet.
  virtual hmoe::io::routing_log_record<T> routing() const = 0;

  /// How they came to be there.
  virtual hmoe::router_trace<T>& trace() = 0;
  virtual const hmoe::router_trace<T>& trace() const = 0;

  /// How many experts compete for tokens.
  virtual std::size_t routed() const = 0;

  /// Hidden width of each expert, shared ones last.
  virtual std::span<const std::size_t> widths() const = 0;

  /// Weights of the router that a token is multiplied with, for counting FLOPs.
  virtual std::size_t router_weights() const = 0;
};

} // namespace language_model
