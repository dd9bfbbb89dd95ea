// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/testing/backend_laws.hpp>

#include <doctest/doctest.h>

using namespace hmoe;

namespace {

struct fused : backends::reference {
  template <class T> static void add_scaled(T weight, vector_view<const T> from, vector_view<T> to) {
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = std::fma(weight, from[i], to[i]);
  }
  template <class T> static void add_scale(T, vector_view<const T>, vector_view<T>) {} // misspelt
};

// Planted faults, one at a time. One type has all of them, so that the laws are compiled once.
enum class fault {
  forgets_last,
  overwrites,
  writes_behind,
  depends_on_batch,
  chooses_higher_id,
  rough_silu,
  loses_gradients,
  announces_nothing
};
struct faulty : backends::reference {
  fault has;

  explicit faulty(fault f) : has(f) {}

  template <class A, class B, class C> void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    if (has == fault::forgets_last && c.rows() > 12)
      reference::multiply(a.row_block(0, 12), b, c.row_block(0, 12));
    else
      reference::multiply(a, b, c);
  }
  template <class A, class B, class C> void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    if (has == fault::overwrites)
      reference::multiply(a, b, c);
    else
      reference::accumulate(a, b, c);
  }
  template <class A, class B, class C>
  void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    reference::multiply_transposed(a, b, c);
    if (has == fault::depends_on_batch && c.rows() > 1)
      for (std::size_t i = 0; i < c.cols(); ++i)
        c(0, i) = std::nextafter(c(0, i), C(1e9));
  }
  template <class T> void copy_scaled(T weight, vector_view<const T> from, vector_view<T> to) const {
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = weight * from[i];
    if (has == fault::writes_behind)
      to.data()[to.size()] = 0;
  }
  template <class Selection, class T>
  std::size_t select(const Selection& selection, vector_view<const T> p, vector_view<index_t> chosen,
                     vector_view<T> scratch) const {
    const std::size_t count = routing::select_row(selection, p, chosen, scratch);
    if (has == fault::chooses_higher_id && count == 5) // ties
      chosen[0] = static_cast<index_t>(p.size() - 1);
    return count;
  }
  template <activation Activation, class T> void activate(vector_view<const T> z, vector_view<T> a) const {
    experts::activate<Activation>(z, a);
    if (has == fault::rough_silu)
      for (T& value : a)
        value *= T(1.001);
  }
  template <class Bank> bool takes_bank(const Bank&) const {
    return has == fault::loses_gradients || has == fault::announces_nothing;
  }
  template <class Context, class Bank>
  void forward_bank(const Context& ctx, const Bank& bank,
                    vector_view<const expert_rows<typename Bank::value_type>> rows) const {
    const workspace::scope scope(ctx.workspace());
    const buffer<float> scratch(has == fault::announces_nothing ? 10000 : 0, &ctx.workspace());
    for (const auto& r : rows)
      bank.forward(*this, r.expert, r.x, r.y, r.saved);
  }
  template <class Context, class Bank>
  void backward_bank(const Context&, const Bank& bank, vector_view<const expert_rows<typename Bank::value_type>> rows,
                     Bank& gradients) const {
    using T = typename Bank::value_type;
    Bank lost = bank;
    for (const auto& r : rows) {
      matrix<T> scratch(r.count, bank.scratch_per_row(r.expert));
      bank.backward(*this, r.expert, r.x, r.saved, r.dy, r.dx, scratch.view(),
                    has == fault::loses_gradients ? lost : gradients);
    }
  }
  template <class Context, class Bank>
  void lay_out_forward_bank(const Context&, const Bank&, const row_limits&) const {}
  template <class Context, class Bank>
  void lay_out_backward_bank(const Context&, const Bank&, const row_limits&) const {}
};
/// Adds results without their weights.
struct forgets_weights : faulty {
  forgets_weights() : faulty(fault::loses_gradients) {}
  template <class Bank> static bool gathers(const Bank&) { return true; }
  template <class Context, class Bank>
  void forward_bank(const Context& ctx, const Bank& bank,
                    vector_view<const expert_rows<typename Bank::value_type>> rows) const {
    using T = typename Bank::value_type;
    if (!rows[0].scatters())
      return faulty::forward_bank(ctx, bank, rows);
    for (const auto& r : rows) {
      matrix<T> out(r.count, bank.d_model()), saved(r.count, bank.saved_per_row(r.expert));
      bank.forward(*this, r.expert, r.x.row_block(0, r.count), out.view(), saved.view());
      for (std::size_t i = 0; i < r.count; ++i)
        hmoe::rows::add_scaled(*this, T(1), vector_view<const T>(out.row(i)), r.y.row(r.tokens[i]));
    }
  }
  template <class Context, class Bank>
  void backward_bank(const Context& ctx, const Bank& bank,
                     vector_view<const expert_rows<typename Bank::value_type>> rows, Bank& gradients) const {
    if (!rows[0].scatters())
      faulty::backward_bank(ctx, bank, rows, gradients);
  }
};
testing::backend_report found_in(fault f, const testing::backend_options& options = {}) {
  return testing::check_backend(faulty{f}, options);
}

} // namespace

TEST_CASE("the reference obeys the laws of backends and has no optional operation") {
  const auto found = testing::check_backend(backends::reference{});
  CHECK(found.text() == "");
  CHECK(found.has().empty());
  CHECK(found.lacks().size() == 13);
}

TEST_CASE("a right operation passes, and a misspelt one is missing in the list") {
  const auto found = testing::check_backend(fused{});
  CHECK(found.text() == "");
  CHECK(found.operations() ==
        "has: add_scaled; lacks: copy_scaled, weighted_sum, dot, activate, activate_backward, "
        "gate, gate_backward, score, select, update_adamw, forward_bank and backward_bank, gathers");
}

TEST_CASE("each planted fault breaks the law that it should") {
  CHECK(found_in(fault::forgets_last).mentions("multiply agrees with the reference"));
  CHECK(found_in(fault::overwrites).mentions("accumulate agrees with the reference"));
  CHECK(found_in(fault::writes_behind).mentions("copy_scaled writes its output only"));
  CHECK(found_in(fault::depends_on_batch).mentions("multiply_transposed gives a row the same bits in any batch"));
  CHECK(found_in(fault::depends_on_batch, {.same_bits_in_any_batch = false}).ok());
  CHECK(found_in(fault::chooses_higher_id).mentions("select chooses the experts that the plain form chooses"));
  CHECK(found_in(fault::rough_silu).mentions("activate agrees with the plain form"));
  CHECK(found_in(fault::loses_gradients).mentions("passes over banks agree with the reference"));
  CHECK(testing::check_backend(forgets_weights{}).mentions("rows that scatter give what contiguous rows give"));
  CHECK(found_in(fault::announces_nothing).mentions("lay_out_forward_bank and lay_out_backward_bank announce enough"));
}
