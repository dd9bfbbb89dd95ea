// SPDX-License-Identifier: MIT
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/workspace.hpp>

#include "../routes.hpp"
#include "chosen_router.hpp"
#include "context.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace hmoe::python {
namespace {

template <class T> matrix_view<T> as_matrix(void* data, std::size_t rows, std::size_t cols) {
  return {static_cast<T*>(data), rows, cols};
}
template <class T> matrix_view<const T> as_matrix(const void* data, std::size_t rows, std::size_t cols) {
  return {static_cast<const T*>(data), rows, cols};
}
/// Contiguous values.
template <class T> void copy(matrix_view<const T> from, matrix_view<T> to) {
  std::copy_n(from.data(), from.size(), to.data());
}
template <class T> void set_up(router_trace<T>& trace, const router_memory& router, const routed& out, bool gradients) {
  require(out.tokens < no_index, out.tokens, " tokens in one batch are too many for 32-bit ids");
  trace.resize(out.tokens, router.experts, 0, gradients);
  routing_inputs<T> inputs;
  if (out.valid != nullptr)
    inputs.valid = {out.valid, out.tokens};
  trace.set_inputs(inputs);
}

template <class T> void route(const route_pass& pass) {
  const router_memory& given = *pass.router;
  const routed& out = pass.out;
  const workspace::scope scope(*pass.scratch);
  const auto ctx = make_context(step::silu, *pass.threads, *pass.scratch);
  const auto router = make_router<T>(given, const_cast<void*>(given.weight)); // not written: no gradients
  router_trace<T> trace(pass.scratch);
  assignment<T> assigned(pass.scratch);
  set_up(trace, given, out, false);
  router.forward(ctx, as_matrix<T>(pass.x, out.tokens, given.d_model), trace, assigned);
  copy<T>(std::as_const(trace).logits(), as_matrix<T>(out.logits, out.tokens, given.experts));
  copy<T>(std::as_const(trace).probabilities(), as_matrix<T>(out.probabilities, out.tokens, given.experts));
  for (std::size_t t = 0; t < out.tokens; ++t) {
    const auto chosen = std::as_const(assigned).experts_of(t);
    const auto weights = std::as_const(assigned).weights_of(t);
    for (std::size_t i = 0; i < out.choices; ++i) {
      const bool used = i < chosen.size();
      out.ids[t * out.choices + i] = used ? static_cast<std::int64_t>(chosen[i]) : -1;
      static_cast<T*>(out.weights)[t * out.choices + i] = used ? weights[i] : T(0);
    }
  }
}

template <class T> void route_backward(const route_backward_pass& pass) {
  const router_memory& given = *pass.router;
  const routed& out = pass.out;
  const workspace::scope scope(*pass.scratch);
  const auto ctx = make_context(step::silu, *pass.threads, *pass.scratch);
  const auto router = make_router<T>(given, const_cast<void*>(given.weight));
  router_trace<T> trace(pass.scratch);
  set_up(trace, given, out, true);
  const auto fill = [&](const void* from, matrix_view<T> to) {
    if (from != nullptr)
      copy<T>(as_matrix<T>(from, out.tokens, given.experts), to);
  };
  fill(out.logits, trace.logits());
  fill(out.probabilities, trace.probabilities());
  fill(pass.d_logits, trace.d_logits());
  fill(pass.d_probabilities, trace.d_probabilities());
  assignment<T> assigned(pass.scratch);
  assigned.resize_tokens(out.tokens);
  assigned.set_padding(out.tokens - trace.valid_tokens());
  for (std::size_t t = 0; t < out.tokens; ++t)
    for (std::size_t i = 0; i < out.choices; ++i)
      assigned.offsets()[t + 1] += out.ids[t * out.choices + i] >= 0 ? 1 : 0;
  assigned.sum_counts();
  assigned.resize_entries();
  buffer<T> d_weights(assigned.size(), pass.scratch);
  for (std::size_t t = 0, entry = 0; t < out.tokens; ++t)
    for (std::size_t choice = t * out.choices; choice < (t + 1) * out.choices; ++choice)
      if (out.ids[choice] >= 0) {
        assigned.experts()[entry] = static_cast<index_t>(out.ids[choice]);
        assigned.weights()[entry] = static_cast<const T*>(out.weights)[choice];
        d_weights[entry++] = pass.d_weights == nullptr ? T(0) : static_cast<const T*>(pass.d_weights)[choice];
      }
  if (pass.dx != nullptr)
    std::fill_n(static_cast<T*>(pass.dx), out.tokens * given.d_model, T(0));
  if (pass.d_weight != nullptr)
    std::fill_n(static_cast<T*>(pass.d_weight), given.experts * given.d_model, T(0));
  auto gradients = make_router<T>(given, pass.d_weight);
  router.backward(ctx, as_matrix<T>(pass.x, out.tokens, given.d_model), trace, assigned,
                  std::as_const(d_weights).view(), as_matrix<T>(pass.dx, out.tokens, given.d_model), gradients);
}

} // namespace
} // namespace hmoe::python

void HMOE_ISA::route_float(const hmoe::python::route_pass& pass) { hmoe::python::route<float>(pass); }
void HMOE_ISA::route_double(const hmoe::python::route_pass& pass) { hmoe::python::route<double>(pass); }
void HMOE_ISA::route_backward_float(const hmoe::python::route_backward_pass& pass) {
  hmoe::python::route_backward<float>(pass);
}
void HMOE_ISA::route_backward_double(const hmoe::python::route_backward_pass& pass) {
  hmoe::python::route_backward<double>(pass);
}
