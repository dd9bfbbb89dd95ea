// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/owned.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/type_identity.hpp>
#include <hmoe/experts/bank.hpp>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace hmoe::experts {

namespace detail {
/// True for experts, never for banks. Tested first: asking std::copyable of bank_of<any_expert> would be recursive.
template <class E>
concept forwards_rows = requires(const E& e, matrix_view<const typename E::value_type> x,
                                 matrix_view<typename E::value_type> y) { e.forward(x, y); };
} // namespace detail

/// An expert whose kind is chosen at run time, for plug-ins: holds any hmoe::expert of this value_type and models
/// hmoe::expert itself. Copies are deep; the gradients of one are a copy of it, so they hold an object of the same
/// kind. Experts of different kinds then fit into one bank:
///   expert_set{bank_of{std::vector<any_expert<float>>{my_expert{…}, your_expert{…}}}}
/// A call costs one virtual function; the held expert does its own arithmetic, without the context's backend. Of a
/// moved-from object nothing but destruction and assignment is allowed.
template <float_or_double T> class any_expert {
public:
  using value_type = T;

  template <class E>
    requires(!std::same_as<std::remove_cvref_t<E>, any_expert>) && detail::forwards_rows<std::remove_cvref_t<E>> &&
            expert<std::remove_cvref_t<E>>
  any_expert(E&& held) : held_(new model<std::remove_cvref_t<E>>(std::forward<E>(held))) {
    static_assert(std::same_as<typename std::remove_cvref_t<E>::value_type, T>,
                  "hmoe::experts::any_expert: the expert's value_type differs from T: use any_expert<float> for an "
                  "expert of float, any_expert<double> for one of double");
  }

  [[nodiscard]] std::size_t d_model() const { return held_->d_model(); }
  /// Those of the held expert, or their defaults (see bank_of).
  [[nodiscard]] std::size_t width() const { return held_->width(); }
  [[nodiscard]] double flops_per_row() const { return held_->flops_per_row(); }

  /// The type of the held expert and its own identity(), where it has one.
  [[nodiscard]] std::string identity() const { return held_->identity(); }

  void forward(matrix_view<const T> x, matrix_view<T> y) const { held_->forward(x, y); }
  /// Throws when `gradients` holds an expert of another kind.
  void backward(matrix_view<const T> x, matrix_view<const T> dy, matrix_view<T> dx, any_expert& gradients) const {
    held_->backward(x, dy, dx, *gradients.held_);
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    held_->visit_parameters([&](const parameter_info& info, matrix_view<T> view) { visit(info, view); });
  }
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    held_->initialize(key, first_stream, options);
  }

  /// The held expert, or nullptr when it is of another kind.
  template <expert E> [[nodiscard]] E* get_if() noexcept {
    auto* held = held_->template as<E>();
    return held == nullptr ? nullptr : &held->bank[0];
  }
  template <expert E> [[nodiscard]] const E* get_if() const noexcept {
    const auto* held = held_->template as<E>();
    return held == nullptr ? nullptr : &held->bank[0];
  }

private:
  using visitor = hmoe::detail::visitor_reference<T>;

  template <class E> struct model;

  struct interface {
    explicit interface(const void* mark) noexcept : held_type(mark) {}
    interface(const interface&) = default;
    interface& operator=(const interface&) = delete;
    virtual ~interface() = default;
    template <class E> [[nodiscard]] model<E>* as() noexcept {
      return held_type == &hmoe::detail::type_mark<E> ? static_cast<model<E>*>(this) : nullptr;
    }
    [[nodiscard]] virtual hmoe::detail::owned<interface> clone() const = 0;
    [[nodiscard]] virtual std::size_t d_model() const = 0;
    [[nodiscard]] virtual std::size_t width() const = 0;
    [[nodiscard]] virtual double flops_per_row() const = 0;
    [[nodiscard]] virtual std::string identity() const = 0;
    virtual void forward(matrix_view<const T> x, matrix_view<T> y) const = 0;
    virtual void backward(matrix_view<const T> x, matrix_view<const T> dy, matrix_view<T> dx,
                          interface& gradients) const = 0;
    virtual void visit_parameters(const visitor& visit) = 0;
    virtual void initialize(seed key, std::uint64_t first_stream, const initialization& options) = 0;

    const void* held_type; ///< address of the type_mark of the held expert
  };

  /// A bank of one, because bank_of knows the defaults of the optional members.
  template <class E> struct model final : interface {
    explicit model(E held) : interface(&hmoe::detail::type_mark<E>), bank(std::move(held)) {}
    [[nodiscard]] hmoe::detail::owned<interface> clone() const override {
      return hmoe::detail::owned<interface>(new model(*this));
    }
    [[nodiscard]] std::size_t d_model() const override { return bank.d_model(); }
    [[nodiscard]] std::size_t width() const override { return bank.width(0); }
    [[nodiscard]] double flops_per_row() const override { return bank.flops_per_row(0); }
    [[nodiscard]] std::string identity() const override {
      std::string text(hmoe::detail::type_name<E>());
      if constexpr (requires { std::string(bank[0].identity()); })
        text.append(" ").append(std::string(bank[0].identity()));
      return text;
    }
    void forward(matrix_view<const T> x, matrix_view<T> y) const override { bank[0].forward(x, y); }
    void backward(matrix_view<const T> x, matrix_view<const T> dy, matrix_view<T> dx,
                  interface& gradients) const override {
      auto* same = gradients.template as<E>();
      require(same != nullptr, "any_expert: the gradients of a ", hmoe::detail::type_name<E>(),
              " hold an expert of another kind: make them by copying the expert");
      bank[0].backward(x, dy, dx, same->bank[0]);
    }
    void visit_parameters(const visitor& visit) override { bank[0].visit_parameters(visit); }
    void initialize(seed key, std::uint64_t first_stream, const initialization& options) override {
      bank.initialize(key, first_stream, options);
    }
    bank_of<E> bank;
  };

  hmoe::detail::owned<interface> held_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
