// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/losses/sparsity_controller.hpp>

#include "errors.hpp"
#include "feed_forward.hpp"
#include "model_shape.hpp"
#include "policies.hpp"
#include "process_group.hpp"
#include "variant.hpp"

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace language_model {

/// What a layer is made from, besides its router.
struct layer_setup {
  const variant& what;
  std::size_t d_model;
  std::size_t max_tokens;
  std::size_t threads;
  std::size_t vocabulary;
  std::size_t index;                                           ///< of the layer's block
  bool last;                                                   ///< whether no layer comes after it
  std::shared_ptr<hmoe::losses::sparsity_controller> sparsity; ///< one for all layers, with loss=adaptive-l1
  const process_group* group = nullptr;                        ///< that experts are divided among; nobody: none
};

template <class T> struct router_entry {
  std::string_view name;
  std::unique_ptr<feed_forward<T>> (*make)(const layer_setup&);
};

/// Routers that differ in how experts are selected, in scores and weights, in noise, that are moved between steps, and
/// that look at more than a token's scores. Defined in routers.hpp.
template <class T> std::vector<router_entry<T>> selection_routers();
template <class T> std::vector<router_entry<T>> score_routers();
template <class T> std::vector<router_entry<T>> noise_routers();
template <class T> std::vector<router_entry<T>> moving_routers();
template <class T> std::vector<router_entry<T>> batch_routers();

/// hmoe::error for routers whose choice depends on the place of a token in the batch, or on the other tokens: a process
/// knows only its own.
template <class T> void require_divisible(const variant& v) {
  for (const auto& table : {noise_routers<T>(), batch_routers<T>()})
    for (const auto& entry : table)
      hmoe::require(entry.name != v.router.kind || entry.name.starts_with("hash"), "variant ", v.name,
                    ": router=", v.router.kind,
                    " looks at the whole batch, which --expert-parallel divides: choose a router of single tokens");
}

template <class T> std::unique_ptr<feed_forward<T>> make_feed_forward(const layer_setup& s) {
  if (s.group != nullptr)
    require_divisible<T>(s.what);
  for (const auto& table :
       {selection_routers<T>(), score_routers<T>(), noise_routers<T>(), moving_routers<T>(), batch_routers<T>()})
    for (const auto& entry : table)
      if (entry.name == s.what.router.kind) {
        try {
          return entry.make(s);
        } catch (const hmoe::error& e) {
          throw hmoe::error("variant " + s.what.name + ": router=" + s.what.router.kind +
                            " with its values cannot be: " + reason(e));
        }
      }
  throw hmoe::error("there is no router " + s.what.router.kind + "; there are " + usage(router_kinds()));
}

/// One layer for each block of a decoder that works on `sequences` windows at a time.
template <class T>
std::vector<std::unique_ptr<feed_forward<T>>> make_feed_forwards(const variant& v, const model_shape& shape,
                                                                 std::size_t sequences, std::size_t threads,
                                                                 const process_group* group = nullptr) {
  std::shared_ptr<hmoe::losses::sparsity_controller> sparsity;
  if (const double lambda = v.coefficient("adaptive-l1"); lambda != 0.0)
    sparsity = std::make_shared<hmoe::losses::sparsity_controller>(v.widths.size(), v.router.value(), lambda);
  std::vector<std::unique_ptr<feed_forward<T>>> layers;
  layers.reserve(shape.blocks);
  for (std::size_t b = 0; b < shape.blocks; ++b)
    layers.push_back(make_feed_forward<T>({v, shape.d_model, sequences * shape.context, threads, shape.vocabulary, b,
                                           b + 1 == shape.blocks, sparsity, group}));
  return layers;
}

} // namespace language_model
