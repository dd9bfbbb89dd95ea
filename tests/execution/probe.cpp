// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using hmoe::probes::direction;
using hmoe::probes::event;
using hmoe::probes::stage;
using hmoe::testing::recording_probe;

struct not_noexcept {
  void begin(const event&);
  void end(const event&);
};
struct silent {
  void begin(const event&) noexcept {}
  void end(const event&) noexcept {}
};
struct prepared : silent {
  std::size_t workers = 0;
  int times = 0;
  void prepare(std::size_t count) {
    workers = count;
    ++times;
  }
};

/// y_i = a_i x_i: of a kind that tells no stages.
class diagonal {
public:
  using value_type = float;
  explicit diagonal(std::size_t d) : a_(1, d) {}
  [[nodiscard]] std::size_t d_model() const { return a_.cols(); }
  void forward(hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i)
        y(r, i) = a_(0, i) * x(r, i);
  }
  void backward(hmoe::matrix_view<const float> x, hmoe::matrix_view<const float> dy, hmoe::matrix_view<float> dx,
                diagonal& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i) {
        dx(r, i) = a_(0, i) * dy(r, i);
        gradients.a_(0, i) += dy(r, i) * x(r, i);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(hmoe::parameter_info{"a"}, a_.view()); }

private:
  hmoe::matrix<float> a_;
};

/// Experts of many kinds under ids that are not in the order of banks.
template <class Dispatch> auto mixed_layer(Dispatch dispatch) {
  using namespace hmoe::experts;
  constexpr std::size_t d = 6;
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::expert_ids{{{1, 4, 5}, {0}, {2}, {3}, {6}}},
                                         glu_bank<float, silu>(d, {3, 7, 2}, biases::all),
                                         mlp_bank<float, gelu>(d, {5}), low_rank_bank<float>(d, {2}), diagonal(d),
                                         identity_bank<float>(d)},
                        hmoe::routing::top_k_router<float>{d, 7, 3}, dispatch};
  layer.initialize(hmoe::seed{3});
  return layer;
}

} // namespace

TEST_CASE("what models a probe") {
  static_assert(hmoe::probe<silent> && hmoe::probe<hmoe::probes::none> && hmoe::probe<recording_probe>);
  static_assert(!hmoe::probe<not_noexcept> && !hmoe::probe<int> && !hmoe::probe<hmoe::workspace>);
}

TEST_CASE("a context without a probe is the type that it was, and no larger; with one, it keeps it") {
  using hmoe::backends::reference;
  using hmoe::executors::serial;
  using plain = hmoe::context<reference>;
  static_assert(std::same_as<plain, hmoe::context<reference, serial, hmoe::probes::none>>);
  static_assert(!hmoe::probes::observed<plain> && hmoe::execution_context<plain>);
  struct parts {
    reference backend;
    serial executor;
    std::unique_ptr<hmoe::workspace> owned;
    hmoe::workspace* memory;
  };
  static_assert(sizeof(plain) == sizeof(parts));
  static_assert(std::is_empty_v<hmoe::probes::watch<plain>> &&
                std::is_trivially_destructible_v<hmoe::probes::watch<plain>>);
  static_assert(std::is_empty_v<hmoe::probes::row_of<plain>>);

  hmoe::workspace memory(64);
  const hmoe::context own{reference{}, hmoe::executors::openmp{3}, prepared{}};
  const hmoe::context callers{reference{}, serial{}, prepared{}, memory};
  const hmoe::context without{reference{}, serial{}, memory};
  static_assert(std::same_as<decltype(own), const hmoe::context<reference, hmoe::executors::openmp, prepared>>);
  static_assert(std::same_as<decltype(without), const plain>);
  static_assert(hmoe::execution_context<hmoe::context<reference, serial, prepared>>);
  static_assert(hmoe::probes::observed<hmoe::context<reference, serial, prepared>>);
  CHECK(own.probe().workers == 3);
  CHECK(own.probe().times == 1);
  CHECK(callers.probe().workers == 1);
  CHECK(&callers.workspace() == &memory);
  CHECK(&without.workspace() == &memory);
}

TEST_CASE("a watch begins when it is told and ends with its life") {
  hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, recording_probe{}};
  {
    hmoe::probes::watch<decltype(ctx)> never, told;
    told.begin(ctx, {stage::plan, direction::backward, 4, 1, 2, 3});
    CHECK(ctx.probe().calls()[0].size() == 1);
  }
  REQUIRE(ctx.probe().calls()[0].size() == 2);
  const auto& last = ctx.probe().calls()[0][1];
  CHECK(!last.begins);
  CHECK(last.event.stage == stage::plan);
  CHECK(last.event.direction == direction::backward);
  CHECK(last.event.rows == 4);
  CHECK(last.event.expert == 3);
}

TEST_CASE("events of rows are multiples of one row's") {
  constexpr event row(stage::gather, direction::forward, 1, 12, 5, 2);
  constexpr event many = row.times(7, 3);
  static_assert(many.rows == 7 && many.bytes == 84 && many.flops == 35 && many.expert == 2 && many.worker == 3);
  CHECK(std::string(hmoe::probes::name_of(stage::gate_up)) == "gate/up");
  CHECK(std::string(hmoe::probes::name_of(stage::other)) == "other");
}

TEST_CASE_TEMPLATE("stages nest and add up to cost(), for experts of all kinds, on one thread and on several", Dispatch,
                   hmoe::dispatch::sorted<>, hmoe::dispatch::looped, hmoe::dispatch::scattered,
                   hmoe::dispatch::per_token, hmoe::dispatch::blocked<32>) {
  const auto layer = mixed_layer(Dispatch{});
  const auto serial = hmoe::testing::check_stages(layer, hmoe::backends::reference{}, hmoe::executors::serial{});
  CHECK_MESSAGE(serial.ok(), serial.text());
  const auto threads =
      hmoe::testing::check_stages(layer, hmoe::backends::reference{}, hmoe::testing::reversed_threads(3), 300);
  CHECK_MESSAGE(threads.ok(), threads.text());
}

TEST_CASE("each stage of a sorted layer is told, with the layer's ids, by the workers that do it") {
  const auto layer = mixed_layer(hmoe::dispatch::sorted{});
  constexpr std::size_t tokens = 200;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::testing::reversed_threads(2), recording_probe{}};
  hmoe::matrix<float> x(tokens, 6), y(tokens, 6), dx(tokens, 6);
  const auto values = hmoe::testing::random_values<float>(x.size(), 3);
  std::copy(values.begin(), values.end(), x.data());
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, std::as_const(x).view(), y.view(), tape);
  layer.backward(ctx, tape, std::as_const(y).view(), dx.view(), gradients);
  const recording_probe& probe = ctx.probe();
  const auto entries = static_cast<std::size_t>(tape.assignment().size());
  const auto rows_of = [&](std::size_t e) { return tape.plan().rows_of(e); };
  for (const direction d : {direction::forward, direction::backward}) {
    const bool back = d == direction::backward;
    CHECK(probe.sum(stage::pass, d).rows == tokens);
    CHECK(probe.sum(stage::plan, d).rows == (back ? 0 : entries));
    CHECK(probe.sum(stage::gather, d).rows == (back ? 2 : 1) * entries); // x, and backward dy
    CHECK(probe.sum(stage::combine, d).rows == tokens);
    for (const std::size_t e : {1U, 4U, 5U, 0U}) { // feed-forward experts
      CHECK(probe.sum(stage::activation, d, e).rows == rows_of(e));
      CHECK(probe.sum(stage::expert, d, e).rows == 0);
    }
    CHECK(probe.sum(stage::gate_up, d, 2).rows == rows_of(2));
    CHECK(probe.sum(stage::activation, d, 2).rows == rows_of(2)); // low rank: x is added
    CHECK(probe.sum(stage::expert, d, 3).rows == rows_of(3));
    CHECK(probe.sum(stage::expert, d, 6).rows == rows_of(6));
    CHECK(probe.sum(stage::expert, d, 6).flops == 0);
  }
  // By hand: expert 4 has width 7, 3 matrices of 6 x 7; gather copies rows of 6 floats.
  const double rows4 = static_cast<double>(rows_of(4));
  CHECK(probe.sum(stage::gate_up, direction::forward, 4).flops == 2 * 2 * 42 * rows4);
  CHECK(probe.sum(stage::down, direction::backward, 4).flops == 2 * 2 * 42 * rows4);
  CHECK(probe.sum(stage::gather, direction::forward).bytes == 2.0 * 6 * 4 * static_cast<double>(entries));
  std::size_t of_second = 0;
  for (const auto& call : probe.calls()[1])
    of_second += call.begins ? 1 : 0;
  CHECK(of_second > 10);
}
