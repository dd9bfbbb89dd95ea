// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/products.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>

#include <concepts>
#include <utility>
#include <vector>

namespace hmoe {

namespace detail {
/// Stands for any backend in concept checks.
struct any_products {
  template <class A, class B, class C> void multiply_transposed(matrix_view<A>, matrix_view<B>, matrix_view<C>) const {}
  template <class A, class B, class C> void multiply(matrix_view<A>, matrix_view<B>, matrix_view<C>) const {}
  template <class A, class B, class C> void accumulate(matrix_view<A>, matrix_view<B>, matrix_view<C>) const {}
  template <class A, class B, class C>
  void accumulate_transposed(matrix_view<A>, matrix_view<B>, matrix_view<C>) const {}
};
struct any_visitor {
  template <class T> void operator()(const parameter_info&, matrix_view<T>) const {}
};
/// What all banks tell about their experts.
template <class B>
concept numbered_experts = requires(const B& bank, std::size_t e) {
  requires float_or_double<typename B::value_type>;
  { bank.size() } -> std::convertible_to<std::size_t>;
  { bank.d_model() } -> std::convertible_to<std::size_t>;
  { bank.width(e) } -> std::convertible_to<std::size_t>;
  { bank.saved_per_row(e) } -> std::convertible_to<std::size_t>;
  { bank.scratch_per_row(e) } -> std::convertible_to<std::size_t>;
  { bank.flops_per_row(e) } -> std::convertible_to<double>;
  { bank.parameter_count(e) } -> std::convertible_to<std::size_t>;
};
} // namespace detail

/// One expert, the smallest thing a user adds. Requirements, for n rows of d_model() values:
///   value_type                              float or double
///   d_model()                               size of a token
///   forward(x[n×d], y[n×d])                 y = expert(x), row by row, const
///   backward(x, dy, dx, gradients)          dx = ∂L/∂x; gradients.(each tensor) += ∂L/∂tensor, const
///   visit_parameters(f)                     f(parameter_info, matrix_view<T>) for each tensor
/// It is copyable; its gradients are an object of the same type. What backward needs of forward it recomputes;
/// a kind that wants to save activations models expert_bank instead.
template <class E>
concept expert = std::copyable<E> && requires(const E& e, E& mutable_e, matrix_view<const typename E::value_type> in,
                                              matrix_view<typename E::value_type> out) {
  requires float_or_double<typename E::value_type>;
  { e.d_model() } -> std::convertible_to<std::size_t>;
  e.forward(in, out);
  e.backward(in, in, out, mutable_e);
  mutable_e.visit_parameters(detail::any_visitor{});
};

/// Numbered experts of one kind. Requirements beyond those of `expert`, for local id e and n rows:
///   size(), width(e)                         how many, and the hidden width of each (0 where that has no meaning)
///   saved_per_row(e), scratch_per_row(e)     values per row that forward saves and that backward needs as scratch
///   flops_per_row(e), parameter_count(e)     forward FLOPs of a row (a multiply-add is two) and weights
///   forward(math, e, x, y, saved)            saved is [n×saved_per_row(e)]; math models matrix_products
///   backward(math, e, x, saved, dy, dx, scratch, gradients)   gradients is a bank of the same type and shape
///   initialize(seed, first_stream, options)  tensor j of expert e draws from a stream of its own
template <class B>
concept expert_bank = std::copyable<B> && detail::numbered_experts<B> &&
                      requires(const B& bank, B& mutable_bank, std::size_t e, detail::any_products math,
                               matrix_view<const typename B::value_type> in, matrix_view<typename B::value_type> out) {
                        bank.forward(math, e, in, out, out);
                        bank.backward(math, e, in, in, in, out, out, mutable_bank);
                        mutable_bank.visit_parameters(detail::any_visitor{});
                        mutable_bank.initialize(seed{}, std::uint64_t{}, initialization{});
                      };

/// Experts in a form that only computes, as a backend keeps it: a bank without parameters to train. Requirements:
/// value_type, size, d_model, width, saved_per_row and scratch_per_row (both 0), flops_per_row and parameter_count as
/// above, and
///   bytes(e)                                 memory of expert e
///   forward_rows(ctx, rows)                  computes several experts at once, see hmoe/core/expert_rows.hpp
///   lay_out_forward_rows(dry, limits)        takes from dry.workspace(), which only counts, what that takes at
///                                            most for rows within the hmoe::row_limits; nothing of it may be touched
/// The last two are templates over the context, so they are checked where a layer is run.
template <class B>
concept inference_bank =
    std::copyable<B> && detail::numbered_experts<B> && !expert_bank<B> && requires(const B& bank, std::size_t e) {
      { bank.bytes(e) } -> std::convertible_to<std::size_t>;
    };

namespace experts {

/// Random streams are numbered expert × this + tensor.
inline constexpr std::uint64_t streams_per_expert = 16;

/// Makes a bank of single experts, so that they take part in an expert_set.
template <expert E> class bank_of {
public:
  using value_type = typename E::value_type;

  bank_of(E single) { experts_.push_back(std::move(single)); }
  explicit bank_of(std::vector<E> several) : experts_(std::move(several)) {
    require(!experts_.empty(), "a bank of experts needs at least one expert");
    for (std::size_t e = 1; e < experts_.size(); ++e)
      require(experts_[e].d_model() == d_model(), "expert ", e, " has d_model ", experts_[e].d_model(),
              ", the first one ", d_model());
  }

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const { return experts_.front().d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const {
    if constexpr (requires { experts_[e].width(); })
      return experts_[e].width();
    else
      return 0;
  }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] double flops_per_row(std::size_t e) const {
    if constexpr (requires { experts_[e].flops_per_row(); })
      return experts_[e].flops_per_row();
    else
      return 2.0 * static_cast<double>(parameter_count(e)); // each weight takes part in one multiply-add
  }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const {
    std::size_t count = 0;
    hmoe::detail::visit_part(experts_[e],
                             [&](const parameter_info&, matrix_view<const value_type> view) { count += view.size(); });
    return count;
  }

  template <class Math>
  void forward(const Math&, std::size_t e, matrix_view<const value_type> x, matrix_view<value_type> y,
               matrix_view<value_type>) const {
    experts_[e].forward(x, y);
  }
  template <class Math>
  void backward(const Math&, std::size_t e, matrix_view<const value_type> x, matrix_view<const value_type>,
                matrix_view<const value_type> dy, matrix_view<value_type> dx, matrix_view<value_type>,
                bank_of& gradients) const {
    experts_[e].backward(x, dy, dx, gradients.experts_[e]);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    for (std::size_t e = 0; e < size(); ++e)
      experts_[e].visit_parameters([&](const parameter_info& info, matrix_view<value_type> view) {
        visit(parameter_info{info.name, info.decay, e, info.trained}, view);
      });
  }
  /// Matrices get the fan-in rule, tensors without decay (biases) zero, unless the expert has an initialize of its own.
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    for (std::size_t e = 0; e < size(); ++e) {
      std::uint64_t stream = first_stream + e * streams_per_expert;
      if constexpr (requires { experts_[e].initialize(key, stream, options); }) {
        experts_[e].initialize(key, stream, options);
      } else {
        experts_[e].visit_parameters([&](const parameter_info& info, matrix_view<value_type> view) {
          const double stddev = info.decay ? 1.0 / std::sqrt(static_cast<double>(view.cols())) : 0.0;
          fill_normal(vector_view<value_type>(view.data(), view.size()), stddev, key, stream++);
        });
      }
    }
  }

  [[nodiscard]] E& operator[](std::size_t e) noexcept { return experts_[e]; }
  [[nodiscard]] const E& operator[](std::size_t e) const noexcept { return experts_[e]; }

private:
  std::vector<E> experts_;
};

} // namespace experts
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
