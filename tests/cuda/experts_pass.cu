// SPDX-License-Identifier: MIT
// Experts with the choices of another router, against loops in double.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/experts_pass.cuh>
#include <hmoe/experts/gating.hpp>

#include "cuda/chosen_experts.hpp"
#include "cuda/small_tiles.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using silu_gate = experts::gated<experts::silu>;

/// What a pass leaves, made as a user of the library makes it: the layout's table and all memory are the caller's.
template <class S>
chosen_results<S> run(const chosen_case& from, const chosen_tensors<S>& host, bool keeps,
                      bool weights_have_gradients = true) {
  using experts_type = backends::cuda_experts<2, S, silu_gate>;
  const std::size_t tokens = from.tokens, choices = from.choices, d = from.d;
  const backends::experts_layout layout(d, from.widths, 2);
  chosen_on_device<S> there(from, host);
  const device_array<std::byte> table(layout.table());
  const experts_type experts(layout, table.data(),
                             {there.in.data(), there.out.data(), there.in_bias.data(), there.out_bias.data()});
  const device_array<S> hidden(experts_type::hidden_values(layout, tokens, choices));
  const device_array<float> outputs(tokens * choices * d);
  const typename experts_type::kept_type kept{hidden.data(), outputs.data()};
  backends::device_workspace forward_memory(experts_type::forward_bytes(layout, tokens, choices, keeps)),
      backward_memory(experts_type::backward_bytes(layout, tokens, choices));
  const executors::cuda_stream stream;
  const backends::cuda_context forward_gpu{backends::cuda{}, stream, forward_memory},
      backward_gpu{backends::cuda{}, stream, backward_memory};
  using view = matrix_view<S, device_space>;
  const auto rows = [&](const device_array<S>& array) { return view(array.data(), tokens, d, there.stride()); };
  const backends::device_choices chosen{{there.ids.data(), tokens, choices}, {there.weights.data(), tokens, choices}};
  if (!keeps) {
    experts.forward(forward_gpu, rows(there.x), chosen, rows(there.y));
  } else {
    experts.forward(forward_gpu, rows(there.x), chosen, rows(there.y), kept);
    typename experts_type::gradients_type gradients;
    if (weights_have_gradients)
      gradients = {there.d_in.data(), there.d_out.data(), there.d_in_bias.data(), there.d_out_bias.data()};
    experts.backward(backward_gpu, rows(there.x), chosen, rows(there.dy), kept, rows(there.dx),
                     {there.d_weights.data(), tokens, choices}, gradients);
  }
  stream.synchronize();
  return there.download();
}

template <class S> void check(const chosen_case& from) {
  const chosen_tensors<S> host(from);
  const auto done = run(from, host, true);
  compare(from, done, by_loops(from, host, silu_gate{}));
  CHECK(same_bits(run(from, host, false).y, done.y)); // keeping changes no bit
  const auto frozen = run(from, host, true, false);
  CHECK(same_bits(frozen.dx, done.dx));
  CHECK(same_bits(frozen.d_weights, done.d_weights));
  CHECK(std::ranges::all_of(frozen.d_in, [](float g) { return g == gradient_start; }));
}

TEST_CASE_TEMPLATE("Outputs and all gradients are those of loops", S, float, bfloat16) {
  check<S>({.tokens = 23, .choices = 3, .d = 24, .widths = {1, 40, 0, 7, 33, 16}, .biased = true, .unused = 4});
  check<S>({.tokens = 12, .choices = 2, .d = 13, .widths = {9, 17}, .spare = 3}); // rows without alignment
  check<S>({.tokens = 5, .choices = 40, .d = 8, .widths = {8, 16, 24}});          // more choices than experts
  check<S>({.tokens = 200, .choices = 1, .d = 16, .widths = {5, 8, 70}, .biased = true});
}

TEST_CASE_TEMPLATE("Passes without races [race]", S, float, bfloat16) {
  check<S>({.tokens = 11, .choices = 3, .d = 24, .widths = {7, 33, 16}, .biased = true});
}

TEST_CASE_TEMPLATE("Nothing to do", S, float, bfloat16) {
  check<S>({.tokens = 0, .choices = 2, .d = 8, .widths = {4, 4}, .biased = true});
  check<S>({.tokens = 3, .choices = 0, .d = 8, .widths = {4, 4}, .biased = true});
  check<S>({.tokens = 3, .choices = 2, .d = 8, .widths = {4, 4}, .biased = true, .only = -1}); // of other ranks alone
  check<S>({.tokens = 3, .choices = 2, .d = 8, .widths = {0, 0}, .biased = true});
}

TEST_CASE("A token's output has the same bits in any batch") {
  const chosen_case from{.tokens = 30, .choices = 2, .d = 24, .widths = {40, 7, 33}, .biased = true};
  const chosen_tensors<bfloat16> host(from);
  const auto all = run(from, host, false).y;
  chosen_case alone = from;
  alone.tokens = 1;
  for (const std::size_t t : {0, 17, 29}) {
    const auto one = run(alone, host.only(from, t), false).y;
    CHECK(std::equal(one.begin(), one.end(), all.begin() + static_cast<std::ptrdiff_t>(t * from.d),
                     [](bfloat16 a, bfloat16 b) { return a.bits == b.bits; }));
  }
}

TEST_CASE("Mistakes are sentences") {
  using experts_type = backends::cuda_experts<2, float, silu_gate>;
  const std::vector<std::size_t> widths{4, 8};
  const backends::experts_layout layout(8, widths, 2), of_mlps(8, widths, 1);
  CHECK(layout.in_size() == 2 * 12 * 8);
  CHECK(support::error_of([&] { backends::experts_layout(8, widths, 3); }) ==
        "hmoe: experts with 3 lanes: a GLU has 2, an MLP 1");
  CHECK(support::error_of([&] { experts_type(of_mlps, nullptr, {nullptr, nullptr}); }) ==
        "hmoe: the layout is of experts with 1 lanes, needed are 2");
  const float bias = 0;
  CHECK(support::error_of([&] {
          experts_type(layout, nullptr, {nullptr, nullptr, &bias});
        }).find("biases of one projection only") != std::string::npos);
  const experts_type experts(layout, nullptr, {nullptr, nullptr});
  backends::device_workspace none(backends::workspace_growth::none);
  const backends::cuda_context gpu{backends::cuda{}, executors::cuda_stream{}, none};
  const auto forward = [&](std::size_t tokens, std::size_t d, std::size_t rows_of_ids, std::size_t rows_of_y) {
    float* const p = nullptr;
    experts.forward(gpu, {p, tokens, d}, {{nullptr, rows_of_ids, 2}, {nullptr, rows_of_ids, 2}}, {p, rows_of_y, d});
  };
  CHECK(support::error_of([&] { forward(3, 7, 3, 3); }) == "hmoe: a token has 7 values, the experts' d_model is 8");
  CHECK(support::error_of([&] { forward(3, 8, 2, 3); }) == "hmoe: there are ids for 2 tokens, x has 3");
  CHECK(support::error_of([&] { forward(3, 8, 3, 4); }) == "hmoe: y is 4 x 8, needed is 3 x 8");
  CHECK(support::error_of([&] { forward(3, 8, 3, 3); }) == "hmoe: the input has 3 x 8 values at a null pointer");
  float values[2 * 24] = {}; // not on the device, and never read there
  const backends::device_choices chosen{{nullptr, 3, 2}, {nullptr, 3, 2}};
  CHECK(support::error_of([&] { experts.forward(gpu, {values, 3, 8}, chosen, {values + 8, 3, 8}); }) ==
        "hmoe: y overlaps the input; they must be different memory");
  CHECK(support::error_of([&] {
          experts.forward(gpu, {values, 3, 8}, chosen, {values + 24, 3, 8});
        }).find("bytes of device workspace, reserved are 0") != std::string::npos);
}

} // namespace
