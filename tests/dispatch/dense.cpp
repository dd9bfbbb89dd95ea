// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/dense.hpp>

#include "dispatch/strategies.hpp"
#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

TEST_CASE("dense is the weighted sum of what each selected expert returns") {
  using T = double;
  const auto layer = support::make_layer<T>(hmoe::dispatch::dense{}, hmoe::routing::top_k_router<T>(10, 6, 3));
  const hmoe::context cpu{hmoe::backends::reference{}};
  support::random_source random(13);
  const std::size_t tokens = 40;
  const auto x = support::random_matrix<T>(random, tokens, 10);
  hmoe::matrix<T> y(tokens, 10);
  auto tape = layer.make_tape(tokens);
  layer.forward(cpu, x, y, tape);
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<T> sum(10, 0);
    const auto ids = std::as_const(tape).assignment().experts_of(t);
    const auto weights = std::as_const(tape).assignment().weights_of(t);
    REQUIRE(ids.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      hmoe::matrix<T> out(1, 10), saved(1, layer.experts().saved_per_row(ids[i]));
      layer.experts().forward(hmoe::backends::reference{}, ids[i], x.view().row_block(t, 1), out.view(), saved.view());
      for (std::size_t c = 0; c < 10; ++c)
        sum[c] += weights[i] * out(0, c);
    }
    for (std::size_t c = 0; c < 10; ++c)
      CHECK(y(t, c) == sum[c]);
  }
}

TEST_CASE("dense itself keeps the promises about bits") { support::check_strategy<float>(hmoe::dispatch::dense{}); }

TEST_CASE("dense's way back is the derivative, by tokens, weights and parameters, weights on either side") {
  const std::size_t tokens = 5, d = 10;
  const hmoe::context cpu{hmoe::backends::reference{}};
  auto layer = support::make_layer<double>(hmoe::dispatch::dense{}, hmoe::routing::top_k_router<double>(d, 6, 2));
  auto& experts = layer.experts();
  for (const bool on_input : {false, true}) {
    CAPTURE(on_input);
    support::random_source random(15);
    auto x = support::random_matrix<double>(random, tokens, d);
    const auto dy = support::random_matrix<double>(random, tokens, d);
    hmoe::tape<double> tape;
    tape.set_weights_on_input(on_input);
    auto& assigned = tape.assignment();
    assigned.resize_tokens(tokens); // token t goes to expert t, and to 5; the last one to none
    for (std::size_t t = 0; t < tokens; ++t)
      assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(2 * std::min<std::size_t>(t + 1, 4));
    assigned.resize_entries();
    for (std::size_t a = 0; a < 8; ++a) {
      assigned.experts()[a] = static_cast<hmoe::index_t>(a % 2 == 0 ? a / 2 : 5);
      assigned.weights()[a] = random.real(0.2, 1);
    }
    hmoe::matrix<double> y(tokens, d), dx(tokens, d);
    std::vector<double> d_weights(8);
    auto gradients = experts;
    hmoe::set_zero(gradients);
    const auto loss = [&] {
      const hmoe::workspace::scope scope(cpu.workspace());
      hmoe::dispatch::dense{}.forward(cpu, experts, std::as_const(x).view(), y.view(), tape);
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i)
        sum += dy.data()[i] * y.data()[i];
      return sum;
    };
    loss();
    tape.input() = x;
    const hmoe::workspace::scope scope(cpu.workspace());
    hmoe::dispatch::dense{}.backward(cpu, experts, tape, dy.view(), dx.view(), hmoe::vector_view<double>(d_weights),
                                     gradients);
    CHECK(support::gradient_error({x.data(), x.size()}, {dx.data(), dx.size()}, loss) < 1e-6);
    CHECK(support::gradient_error({assigned.weights().data(), 8}, d_weights, loss) < 1e-6);
    std::vector<hmoe::parameter<double>> parameters;
    hmoe::append_parameters<double>(experts, gradients, "", parameters);
    for (const auto& p : parameters) {
      CAPTURE(p.name);
      CHECK(support::gradient_error(p.value, p.gradient, loss) < 1e-6);
    }
  }
}
