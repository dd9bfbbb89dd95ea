// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/routing/any_router.hpp>

namespace language_model {

/// What layers compute with.
using layer_context = hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>;

/// The router of a layer, of any kind: the layers are then of one type and compiled once.
template <class T> using layer_router = hmoe::routing::any_router<T, layer_context>;

} // namespace language_model
