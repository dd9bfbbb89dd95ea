// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

using hmoe::testing::check_dispatch;

namespace {
using base = hmoe::dispatch::dense;
enum class fault {
  none,
  wrong_y,
  wrong_dx,
  forgets_weights,
  wrong_gradient,
  few_slots,
  unannounced,
  thread_dependent,
  rounds,
  needs_a_tape,
  past_the_row,
  past_the_weights,
  wrong_in_layers,
  hates_layers
};

struct faulty : base {
  fault kind = fault::none;
  template <class Context, class Experts, class T>
  void forward(const Context& ctx, const Experts& experts, hmoe::matrix_view<const T> x, hmoe::matrix_view<T> y,
               hmoe::tape<T>& tape) const {
    base::forward(ctx, experts, x, y, tape);
    hmoe::matrix<T> more(&ctx.workspace());
    if (kind == fault::unannounced)
      more.resize_for_overwrite(3 * x.rows(), x.cols());
    if (x.rows() == 0)
      return;
    if (kind == fault::wrong_in_layers && x.rows() == 200)
      y(199, 5) = 0;
    if (kind == fault::hates_layers && x.rows() == 200)
      throw std::runtime_error("out of order");
    if (kind == fault::needs_a_tape && !tape.recording())
      y(0, 0) = 0;
    if (kind == fault::past_the_row)
      y.row(0).data()[y.cols()] = 0;
    if (kind == fault::wrong_y)
      y(x.rows() - 1, 0) += 1;
    if (kind == fault::rounds)
      y(0, 0) *= 1 + 1e-14;
    if (kind == fault::thread_dependent)
      y(0, 0) += static_cast<T>(ctx.executor().concurrency() - 1);
  }
  template <class Context, class Experts, class T>
  void backward(const Context& ctx, const Experts& experts, hmoe::tape<T>& tape, hmoe::matrix_view<const T> dy,
                hmoe::matrix_view<T> dx, hmoe::vector_view<T> d_weights, Experts& gradients) const {
    base::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
    if (kind == fault::wrong_dx && dy.rows() == 3)
      dx(2, 1) = 0;
    if (kind == fault::past_the_weights)
      d_weights.data()[d_weights.size()] = 0;
    if (kind == fault::forgets_weights && !d_weights.empty())
      d_weights[0] = 0;
    if (kind == fault::wrong_gradient)
      gradients.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<T> g) { g(0, 0) += 1; });
  }
  template <class Experts>
  [[nodiscard]] std::size_t slots(const Experts& experts, const hmoe::batch_limits& batch) const {
    return kind == fault::few_slots ? batch.entries : base::slots(experts, batch);
  }
};
/// Gives the weights of dropped entries a gradient.
struct leaking : hmoe::dispatch::sorted<hmoe::capacity::fixed> {
  leaking() : sorted(hmoe::capacity::fixed{7}) {}
  template <class Context, class Experts, class T>
  void backward(const Context& ctx, const Experts& experts, hmoe::tape<T>& tape, hmoe::matrix_view<const T> dy,
                hmoe::matrix_view<T> dx, hmoe::vector_view<T> d_weights, Experts& gradients) const {
    sorted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
    for (std::size_t a = 0; a < d_weights.size(); ++a)
      if (tape.plan().slots()[a] == hmoe::no_index)
        d_weights[a] = 1;
  }
};
std::string laws(fault kind, const hmoe::testing::dispatch_options& options = {}) {
  return check_dispatch(faulty{{}, kind}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a shipped strategy keeps the laws") {
  CHECK(check_dispatch(hmoe::dispatch::sorted{}).text() == "");
  CHECK(laws(fault::none) == "");
}

TEST_CASE("each fault of a strategy is named") {
  CHECK(names(laws(fault::wrong_y), "y equals the dense strategy's: not with 1 tokens"));
  CHECK(names(laws(fault::wrong_dx), "dx equals the dense strategy's: not with 3 tokens"));
  CHECK(names(laws(fault::forgets_weights), "the weights' gradients equal the dense strategy's"));
  CHECK(names(laws(fault::wrong_gradient), "the experts' gradients equal the dense strategy's"));
  CHECK(names(laws(fault::few_slots), "more rows than slots() announces"));
  CHECK(names(laws(fault::unannounced), "lay_out_forward and lay_out_backward announce enough"));
  CHECK(names(laws(fault::thread_dependent), "results do not depend on the threads"));
  CHECK(names(laws(fault::rounds), "y equals the dense strategy's"));
  CHECK(laws(fault::rounds, {.bit_exact = false}) == "");
  CHECK(names(laws(fault::needs_a_tape), "y without a recording tape is the same: not with 1 tokens"));
  CHECK(names(laws(fault::past_the_row), "works without an exception: an exception was thrown: hmoe: memory beside y"));
  CHECK(names(laws(fault::past_the_weights), "memory beside the gradients of the weights changed"));
  CHECK(names(laws(fault::wrong_in_layers),
              "a layer computes what it does with the dense strategy: y of 200 tokens differs at [199, 5]: got 0"));
  CHECK(names(laws(fault::hates_layers), "works in a layer: an exception was thrown: out of order"));
}

TEST_CASE("a strategy that drops is held to what it keeps") {
  const hmoe::dispatch::sorted dropping{hmoe::capacity::fixed{7}};
  CHECK(check_dispatch(dropping, {.drops = true}).text() == "");
  CHECK(names(check_dispatch(dropping).text(), "y equals the dense strategy's: not with 64 tokens"));
  CHECK(names(check_dispatch(leaking{}, {.drops = true}).text(), "the weight of a dropped entry has gradient 0"));
  CHECK(names(check_dispatch(hmoe::dispatch::sorted{}, {.drops = true}).text(), "drops what is beyond the capacity"));
}
