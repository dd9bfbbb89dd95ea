// SPDX-License-Identifier: MIT
// Passes without a probe, for unobserved.py: forward and backward, with both ways to compute a bank and several
// strategies.
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#ifdef HMOE_WITH_SIMD
#include <hmoe/backends/simd.hpp>
#endif

#include <concepts>

namespace {
using experts_type = hmoe::expert_set<hmoe::experts::glu_bank<float, hmoe::experts::silu>,
                                      hmoe::experts::mlp_bank<float, hmoe::experts::relu>>;
template <class Dispatch> using layer_of = hmoe::moe_layer<experts_type, hmoe::routing::top_k_router<float>, Dispatch>;

template <class Context, class Layer>
void train(const Context& ctx, const Layer& layer, hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y,
           hmoe::tape<float>& tape, typename Layer::gradients_type& gradients) {
  layer.forward(ctx, x, y);
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, x, y, gradients);
}
} // namespace

#define HMOE_PASSES(name, Backend, Executor, Dispatch)                                                                 \
  void name(const hmoe::context<Backend, Executor>& ctx, const layer_of<Dispatch>& layer,                              \
            hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y, hmoe::tape<float>& tape,                     \
            layer_of<Dispatch>::gradients_type& gradients) {                                                           \
    train(ctx, layer, x, y, tape, gradients);                                                                          \
  }
HMOE_PASSES(sorted_serial, hmoe::backends::reference, hmoe::executors::serial, hmoe::dispatch::sorted<>)
HMOE_PASSES(looped_openmp, hmoe::backends::reference, hmoe::executors::openmp, hmoe::dispatch::looped)
HMOE_PASSES(dense_serial, hmoe::backends::reference, hmoe::executors::serial, hmoe::dispatch::dense)
#ifdef HMOE_WITH_SIMD
HMOE_PASSES(scattered_simd, hmoe::backends::simd<>, hmoe::executors::openmp, hmoe::dispatch::scattered)

using packed_layer = decltype(hmoe::backends::simd<>::pack(std::declval<const layer_of<hmoe::dispatch::scattered>&>()));
void packed(const hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>& ctx, const packed_layer& layer,
            hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y) {
  layer.forward(ctx, x, y);
}
#endif
