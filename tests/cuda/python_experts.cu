// SPDX-License-Identifier: MIT
// What hmoe._cuda of examples/pytorch calls, with addresses as Python gives them: every step between projections,
// against loops in double.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "../../examples/pytorch/src/cuda/device_experts.cu"
#include "cuda/chosen_experts.hpp"
#include "cuda/small_tiles.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using python::step;

template <class S> constexpr python::scalar scalar_of() {
  return std::is_same_v<S, float> ? python::scalar::float32 : python::scalar::bfloat16;
}

template <class S>
chosen_results<S> run(const chosen_case& from, const chosen_tensors<S>& host, const python::device_experts& experts,
                      bool keeps) {
  chosen_on_device<S> there(from, host);
  const device_array<std::byte> table(experts.table()),
      forward_memory(experts.forward_bytes(from.tokens, from.choices, keeps)),
      backward_memory(experts.backward_bytes(from.tokens, from.choices));
  const device_array<S> hidden(experts.hidden_values(from.tokens, from.choices));
  const device_array<float> outputs(from.tokens * from.choices * from.d);
  const executors::cuda_stream stream;
  const auto place = [&](const device_array<std::byte>& workspace) {
    return python::device_place{stream.device(), stream.get(), table.data(), workspace.data(), workspace.size(), false};
  };
  const python::device_weights weights{there.in.data(), there.out.data(), there.in_bias.data(), there.out_bias.data()};
  const python::device_batch batch{from.tokens, from.choices, there.x.data(), there.ids.data(), there.weights.data()};
  const python::device_kept kept{hidden.data(), outputs.data()};
  experts.forward(place(forward_memory), weights, batch, there.y.data(), keeps ? kept : python::device_kept{});
  if (keeps)
    experts.backward(place(backward_memory), weights, batch, there.dy.data(), kept, there.dx.data(),
                     there.d_weights.data(),
                     {there.d_in.data(), there.d_out.data(), there.d_in_bias.data(), there.d_out_bias.data()});
  stream.synchronize();
  return there.download();
}

template <class S, class Gate>
void check(chosen_case from, step function, const Gate& gate, double limit, double alpha) {
  from.lanes = requires { gate.value(1.0, 1.0); } ? 2 : 1;
  CAPTURE(static_cast<int>(function));
  CAPTURE(from.lanes);
  const chosen_tensors<S> host(from);
  const auto experts =
      python::device_experts::make(from.d, from.widths, {scalar_of<S>(), from.lanes == 2, function, limit, alpha});
  const auto done = run(from, host, *experts, true);
  compare(from, done, by_loops(from, host, gate));
  if (from.lanes == 2 && function == step::silu)
    CHECK(same_bits(run(from, host, *experts, false).y, done.y));
}

const chosen_case small{.tokens = 9, .choices = 2, .d = 16, .widths = {5, 24, 0, 16}, .biased = true};
constexpr double none = std::numeric_limits<double>::infinity();

template <class S, class Activation> void check_activation(step function) {
  check<S>(small, function, Activation{}, none, 1);
  check<S>(small, function, experts::clamped<Activation>{.limit = 0.55}, 0.55, 1);
}

TEST_CASE_TEMPLATE("Each step is that of the host", S, float, bfloat16) {
  check<S>(small, step::silu, experts::gated<experts::silu>{}, none, 1);
  check_activation<S, experts::silu>(step::silu);
  check_activation<S, experts::gelu>(step::gelu);
  check_activation<S, experts::gelu_tanh>(step::gelu_tanh);
  check_activation<S, experts::relu>(step::relu);
  check_activation<S, experts::squared_relu>(step::squared_relu);
  check_activation<S, experts::linear>(step::linear);
  check<S>(small, step::gpt_oss, experts::gpt_oss_gate{.limit = 0.55, .alpha = 1.3}, 0.55, 1.3);
  check<S>(small, step::silu_then_limit, python::limited_silu{.limit = 0.3}, 0.3, 1);
  check<S>(small, step::softcapped, python::softcapped_gate{.gate_cap = 0.6, .up_cap = 0.9}, 0.6, 0.9);
}

TEST_CASE("Batches and rows as they come") {
  using gate = experts::gated<experts::silu>;
  check<float>({.tokens = 12, .choices = 3, .d = 13, .widths = {9, 17}}, step::silu, gate{}, none, 1);
  check<bfloat16>({.tokens = 200, .choices = 1, .d = 24, .widths = {5, 8, 70}, .biased = true}, step::silu, gate{},
                  none, 1);
  check<bfloat16>({.tokens = 0, .choices = 2, .d = 8, .widths = {4, 4}}, step::silu, gate{}, none, 1);
}

TEST_CASE("Mistakes are sentences") {
  CHECK(support::error_of([] {
          (void)python::device_experts::make(8, {4}, {.type = python::scalar::float64});
        }).find("experts of float64 on a GPU") != std::string::npos);
  const auto experts = python::device_experts::make(8, {4}, {});
  const device_array<std::byte> table(experts->table());
  const python::device_place place{0, nullptr, table.data(), nullptr, 0, false};
  const device_array<float> x(8), y(8), weights(1);
  const device_array<std::int64_t> ids(1);
  const python::device_batch token{1, 1, x.data(), ids.data(), weights.data()};
  const auto said = [&](float* to) { return support::error_of([&] { experts->forward(place, {}, token, to, {}); }); };
  CAPTURE(said(y.data()));
  CHECK(said(y.data()).find("bytes of device workspace, reserved are 0") != std::string::npos);
  CAPTURE(said(x.data()));
  CHECK(said(x.data()).find("overlaps") != std::string::npos);
}

} // namespace
