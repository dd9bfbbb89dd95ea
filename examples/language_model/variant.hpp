// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace language_model {

struct router_choice {
  std::string kind = "top-k";      ///< one of router_kinds()
  std::vector<double> values{2.0}; ///< its numbers, k or p first

  /// The first of them, or what a router without any is about: one expert.
  double value() const { return values.empty() ? 1.0 : values.front(); }

  friend bool operator==(const router_choice&, const router_choice&) = default;
};

struct loss_choice {
  std::string name; ///< one of loss_kinds()
  double coefficient = 0.0;
  std::string option; ///< one of the kind's options; empty: the first

  friend bool operator==(const loss_choice&, const loss_choice&) = default;
};

/// Experts that every token gets.
struct shared_choice {
  std::string kind;                ///< one of shared_kinds(), or empty
  std::vector<std::size_t> widths; ///< hidden width of each

  friend bool operator==(const shared_choice&, const shared_choice&) = default;
};

/// One kind of feed-forward layer to train and compare.
struct variant {
  std::string name;
  std::string title;
  std::vector<std::size_t> widths; ///< hidden width of each routed expert; a single one is a dense layer
  shared_choice shared;
  router_choice router;
  std::vector<loss_choice> losses;
  std::string control_of; ///< variant whose activated width this one matches, or empty
  std::size_t runs = 1;   ///< how many seeds

  bool dense() const { return widths.size() == 1; }
  bool homogeneous() const;
  double mean_width() const;
  std::size_t shared_width() const;            ///< sum of the widths of the shared experts
  std::vector<std::size_t> all_widths() const; ///< of the routed experts, then of the shared ones
  const loss_choice* find_loss(const std::string& loss) const;
  double coefficient(const std::string& loss) const;
};

/// Reads "name=hmoe,experts=8,sizes=arithmetic:9:23,total=1024,router=top-k:2,loss=parameter-penalty:0.1".
/// What is left out takes these values (loss and shared: none); a second loss is a second loss=… . Throws hmoe::error.
variant parse_variant(const std::string& text);

/// Throws hmoe::error unless the variants of a comparison have names of their own, and controls belong to one of them.
void validate(const std::vector<variant>& together);

/// The lists that --list names: smoke, demo, full.
std::vector<std::string> list_names();
std::vector<variant> named_list(const std::string& name);

/// Training FLOPs of each run of a named list.
double named_list_budget(const std::string& name);

/// A homogeneous top-2 layer of as many experts that activates `width` per token, with load balance 1e-2.
variant homogeneous_control(const variant& of, double width);

/// Shares of activations, summing to 1, at which the parameter penalty is in balance: proportional to 1/width.
std::vector<double> predicted_shares(const variant& v);

/// Activated width in that balance: k × the harmonic mean of the widths. Only for top-k with that penalty, or with
/// experts of one width; none where no expert can be active often enough (its share would exceed 1/k). Shared experts
/// come on top.
std::optional<double> predicted_activated_width(const variant& v);

nlohmann::json to_json(const variant& v);
variant variant_from_json(const nlohmann::json& json);

} // namespace language_model
