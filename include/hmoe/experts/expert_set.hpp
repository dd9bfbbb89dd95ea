// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/diagnosis.hpp>
#include <hmoe/experts/run.hpp>

#include <algorithm>
#include <array>
#include <tuple>
#include <type_traits>
#include <utility>

namespace hmoe {

/// Banks of different kinds under one numbering: the experts of the first bank come first. A single `expert` may be
/// given in place of a bank.
template <class... Banks> class expert_set {
  static_assert(sizeof...(Banks) >= 1, "hmoe::expert_set: Banks is empty: give at least one bank, "
                                       "for instance experts::glu_bank<float, experts::silu>");
  static_assert((detail::diagnose_bank<Banks>() && ...),
                "hmoe::expert_set: an element of Banks models neither hmoe::expert (value_type, d_model, forward, "
                "backward, visit_parameters) nor hmoe::expert_bank; the requirements are listed in "
                "hmoe/experts/bank.hpp, and hmoe/testing/expert_laws.hpp tells what is wrong with yours");

public:
  using value_type = typename std::tuple_element_t<0, std::tuple<Banks...>>::value_type;
  static_assert((std::same_as<typename Banks::value_type, value_type> && ...),
                "hmoe::expert_set: Banks differ in value_type: give all of them float, or all of them double");

  explicit expert_set(Banks... banks) : banks_(std::move(banks)...) {
    std::size_t b = 0;
    for_each_bank([&](const auto& bank, std::size_t first) {
      require(bank.d_model() == d_model(), "bank ", b, " has d_model ", bank.d_model(), ", the first bank ", d_model());
      firsts_[++b] = first + bank.size();
    });
  }

  /// Number of experts N of all banks.
  [[nodiscard]] std::size_t size() const noexcept { return firsts_.back(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return std::get<0>(banks_).d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.width(i)}; });
  }
  [[nodiscard]] std::size_t saved_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.saved_per_row(i)}; });
  }
  /// Memory of expert e's parameters.
  [[nodiscard]] std::size_t bytes(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) -> std::size_t {
      if constexpr (requires { bank.bytes(i); })
        return bank.bytes(i);
      else
        return bank.parameter_count(i) * sizeof(value_type);
    });
  }
  /// What banks that compute several experts at once take from the workspace for `rows` rows at most.
  [[nodiscard]] std::size_t forward_rows_bytes(std::size_t rows) const {
    std::size_t most = 0;
    for_each_bank([&](const auto& bank, std::size_t) {
      if constexpr (requires { bank.workspace_bytes(rows); })
        most = std::max<std::size_t>(most, bank.workspace_bytes(rows));
    });
    return most;
  }
  [[nodiscard]] std::size_t scratch_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.scratch_per_row(i)}; });
  }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.parameter_count(i)}; });
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return double{bank.flops_per_row(i)}; });
  }

  template <std::size_t B> [[nodiscard]] auto& bank() noexcept { return std::get<B>(banks_); }
  template <std::size_t B> [[nodiscard]] const auto& bank() const noexcept { return std::get<B>(banks_); }

  /// y = expert_e(x) for n rows; saved is [n × saved_per_row(e)].
  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const value_type> x, matrix_view<value_type> y,
               matrix_view<value_type> saved) const {
    at(e, [&](const auto& bank, std::size_t i) {
      if constexpr (!inference_bank<std::remove_cvref_t<decltype(bank)>>) // these never come one expert at a time
        bank.forward(math, i, x, y, saved);
      return 0;
    });
  }
  /// dx = ∂L/∂x, gradients += ∂L/∂weights; scratch is [n × scratch_per_row(e)].
  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const value_type> x, matrix_view<const value_type> saved,
                matrix_view<const value_type> dy, matrix_view<value_type> dx, matrix_view<value_type> scratch,
                expert_set& gradients) const {
    backward_in_bank<0>(math, e, x, saved, dy, dx, scratch, gradients);
  }

  /// The rows of many experts, each by whoever computes it best (hmoe/experts/run.hpp): y, and what backward needs.
  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows) const {
    experts::forward_rows(ctx, *this, rows);
  }
  /// dx of all rows, gradients += ∂L/∂weights.
  template <execution_context Context>
  void backward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows, expert_set& gradients) const {
    experts::backward_rows(ctx, *this, rows, gradients);
  }
  /// Who computes the rows of expert e in this context, forward.
  template <execution_context Context>
  [[nodiscard]] experts::runner runner_of(const Context& ctx, std::size_t e) const {
    return at(e, [&](const auto& bank, std::size_t) { return experts::forward_runner(ctx, bank); });
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    std::size_t b = 0;
    std::apply(
        [&](auto&... bank) {
          (..., bank.visit_parameters([&, first = firsts_[b++]](const parameter_info& info, auto view) {
            visit(parameter_info{info.name, info.decay, first + info.expert, info.trained}, view);
          }));
        },
        banks_);
  }
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    std::size_t b = 0;
    std::apply(
        [&](auto&... bank) {
          (..., bank.initialize(key, first_stream + firsts_[b++] * experts::streams_per_expert, options));
        },
        banks_);
  }

  /// f(bank, id of its first expert) for each bank in order.
  template <class F> void for_each_bank(F&& f) const {
    std::size_t first = 0;
    std::apply([&](const auto&... bank) { (..., (f(bank, first), first += bank.size())); }, banks_);
  }

  /// f(bank, id of its first expert, the bank of `other` in its place) for each bank in order.
  template <class F> void for_each_bank_with(expert_set& other, F&& f) const {
    [&]<std::size_t... B>(std::index_sequence<B...>) {
      (..., f(std::get<B>(banks_), firsts_[B], std::get<B>(other.banks_)));
    }(std::index_sequence_for<Banks...>{});
  }

private:
  /// f(bank, local id) for the bank that holds expert e.
  template <std::size_t B = 0, class F> auto at(std::size_t e, F&& f) const {
    if constexpr (B + 1 < sizeof...(Banks))
      if (e >= firsts_[B + 1])
        return at<B + 1>(e, std::forward<F>(f));
    return f(std::get<B>(banks_), e - firsts_[B]);
  }
  template <std::size_t B, class Math>
  void backward_in_bank(const Math& math, std::size_t e, matrix_view<const value_type> x,
                        matrix_view<const value_type> saved, matrix_view<const value_type> dy,
                        matrix_view<value_type> dx, matrix_view<value_type> scratch, expert_set& gradients) const {
    if constexpr (B + 1 < sizeof...(Banks))
      if (e >= firsts_[B + 1])
        return backward_in_bank<B + 1>(math, e, x, saved, dy, dx, scratch, gradients);
    std::get<B>(banks_).backward(math, e - firsts_[B], x, saved, dy, dx, scratch, std::get<B>(gradients.banks_));
  }

  std::tuple<Banks...> banks_;
  std::array<std::size_t, sizeof...(Banks) + 1> firsts_{};
};

namespace detail {
template <class B> struct as_bank {
  using type = B;
};
template <expert E>
  requires(!expert_bank<E>)
struct as_bank<E> {
  using type = experts::bank_of<E>;
};
} // namespace detail

template <class... Kinds> expert_set(Kinds...) -> expert_set<typename detail::as_bank<Kinds>::type...>;

} // namespace hmoe
