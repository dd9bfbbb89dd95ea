// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/bank.hpp>

#include <cstddef>
#include <optional>
#include <utility>

namespace hmoe::compress {

/// A bank for inference, or none: where the type of a layer names a bank for every format, and which of them have
/// experts is known at run time only.
template <inference_bank Bank> class possible_bank {
public:
  using value_type = typename Bank::value_type;
  static constexpr bool observes_stages = probes::observes_stages<Bank>;

  /// No expert.
  explicit possible_bank(std::size_t d_model) : d_model_(d_model) {
    require(d_model >= 1, "an expert bank needs d_model >= 1");
  }
  explicit possible_bank(Bank bank) : d_model_(bank.d_model()), bank_(std::move(bank)) {}

  [[nodiscard]] const std::optional<Bank>& bank() const noexcept { return bank_; }

  /// The same at smaller widths, on the same memory, where the bank can do that.
  [[nodiscard]] possible_bank prefix(vector_view<const std::size_t> widths) const
    requires requires(const Bank& bank) { bank.prefix(widths); }
  {
    return bank_ ? possible_bank(bank_->prefix(widths)) : possible_bank(d_model_);
  }

  [[nodiscard]] possible_bank prefixes(vector_view<const std::size_t> places,
                                       vector_view<const std::size_t> widths) const
    requires requires(const Bank& bank) { bank.prefixes(places, widths); }
  {
    return bank_ ? possible_bank(bank_->prefixes(places, widths)) : possible_bank(d_model_);
  }

  [[nodiscard]] std::size_t size() const noexcept { return bank_ ? bank_->size() : 0; }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return bank_->width(e); }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept { return bank_->parameter_count(e); }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept { return bank_->flops_per_row(e); }
  [[nodiscard]] std::size_t bytes(std::size_t e) const noexcept { return bank_->bytes(e); }

  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows) const {
    if (bank_)
      bank_->forward_rows(ctx, rows);
  }
  template <execution_context Context> void lay_out_forward_rows(const Context& dry, const row_limits& limits) const {
    if (bank_)
      bank_->lay_out_forward_rows(dry, limits);
  }

private:
  std::size_t d_model_;
  std::optional<Bank> bank_;
};

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
