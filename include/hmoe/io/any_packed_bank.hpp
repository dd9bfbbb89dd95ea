// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/io/packed_kinds.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Packed experts whose format and gate are known at run time only, as a part of an expert_set: any packed_form. A
/// layer with it is one type, compiled once for this Context; the place that makes the bank compiles its kernels. A
/// pass costs one virtual call more than that of the bank itself and gives the same bits. Copies share the weights.
template <execution_context Context> class any_packed_bank {
public:
  using value_type = float;
  using context_type = Context;
  using rows_type = vector_view<const expert_rows<float>>;
  static constexpr bool observes_stages = true;

  template <packed_form Bank>
  explicit any_packed_bank(Bank bank)
      : d_model_(bank.d_model()), layout_(Bank::layout()), kind_(detail::packed_kind<Bank>()) {
    for (std::size_t e = 0; e < bank.size(); ++e)
      experts_.push_back({bank.width(e), bank.parameter_count(e), bank.bytes(e), bank.flops_per_row(e)});
    held_ = std::make_shared<const model<Bank>>(std::move(bank));
  }

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return experts_[e].width; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept { return experts_[e].parameters; }
  [[nodiscard]] std::size_t bytes(std::size_t e) const noexcept { return experts_[e].bytes; }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept { return experts_[e].flops; }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }

  /// What a file of packed layers has of it (packed_checkpoint_writer).
  [[nodiscard]] const packed_layout& layout() const noexcept { return layout_; }
  [[nodiscard]] const std::string& kind() const noexcept { return kind_; }
  [[nodiscard]] packed_values values() const { return held_->values(); }

  template <execution_context C> void forward_rows(const C& ctx, rows_type rows) const {
    explain_context<C, pass_context>();
    if constexpr (std::same_as<C, pass_context>)
      held_->forward_rows(ctx, rows);
  }
  template <execution_context C> void lay_out_forward_rows(const C& dry, const row_limits& limits) const {
    explain_context<C, dry_context<Context>>();
    if constexpr (std::same_as<C, dry_context<Context>>)
      held_->lay_out_forward_rows(dry, limits);
  }

private:
  /// What a set gives its banks: where there is a probe, a context that renumbers the experts of events.
  using pass_context =
      std::conditional_t<probes::observed<Context>, probes::placed_context<Context, probes::renumbered>, Context>;
  template <class C, class Needed> static void explain_context() {
    static_assert(std::same_as<C, Needed>,
                  "hmoe::io::any_packed_bank: these experts run in contexts of its type Context only, which their "
                  "kernels were compiled for: use a context of this type, or any_packed_bank<Context> with the type of "
                  "yours");
  }

  struct interface {
    virtual ~interface() = default;
    [[nodiscard]] virtual packed_values values() const = 0;
    virtual void forward_rows(const pass_context& ctx, rows_type rows) const = 0;
    virtual void lay_out_forward_rows(const dry_context<Context>& dry, const row_limits& limits) const = 0;
  };
  template <class Bank> struct model final : interface {
    explicit model(Bank held) : bank(std::move(held)) {}
    [[nodiscard]] packed_values values() const override { return bank.values(); }
    void forward_rows(const pass_context& ctx, rows_type rows) const override { bank.forward_rows(ctx, rows); }
    void lay_out_forward_rows(const dry_context<Context>& dry, const row_limits& limits) const override {
      bank.lay_out_forward_rows(dry, limits);
    }
    Bank bank;
  };
  struct expert_size {
    std::size_t width, parameters, bytes;
    double flops;
  };

  std::size_t d_model_;
  packed_layout layout_;
  std::string kind_;
  std::vector<expert_size> experts_;
  std::shared_ptr<const interface> held_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
