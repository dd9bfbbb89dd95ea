// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/openmp.hpp>

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace support {

/// A packed bank whose type is hidden: layers of all formats and gates are then one type, which is compiled once. Calls
/// the bank, does nothing else.
class packed_experts {
public:
  using value_type = float;
  using context_type = hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>;
  using dry_type = hmoe::dry_context<context_type>;
  using rows_type = hmoe::vector_view<const hmoe::expert_rows<float>>;

  template <class Bank> explicit packed_experts(Bank packed) : d_model_(packed.d_model()) {
    for (std::size_t e = 0; e < packed.size(); ++e)
      experts_.push_back({packed.width(e), packed.parameter_count(e), packed.bytes(e), packed.flops_per_row(e)});
    const auto bank = std::make_shared<const Bank>(std::move(packed));
    forward_ = [bank](const context_type& ctx, rows_type rows) { bank->forward_rows(ctx, rows); };
    lay_out_ = [bank](const dry_type& dry, const hmoe::row_limits& limits) { bank->lay_out_forward_rows(dry, limits); };
  }

  [[nodiscard]] std::size_t size() const { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const { return experts_[e].width; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const { return experts_[e].parameters; }
  [[nodiscard]] std::size_t bytes(std::size_t e) const { return experts_[e].bytes; }
  [[nodiscard]] double flops_per_row(std::size_t e) const { return experts_[e].flops; }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) { return 0; }

  template <class Context> void forward_rows(const Context& ctx, rows_type rows) const {
    static_assert(std::same_as<Context, context_type> || std::same_as<Context, dry_type>);
    if constexpr (std::same_as<Context, context_type>) // nothing is computed in the other
      forward_(ctx, rows);
  }
  void lay_out_forward_rows(const dry_type& dry, const hmoe::row_limits& limits) const { lay_out_(dry, limits); }

private:
  struct expert {
    std::size_t width, parameters, bytes;
    double flops;
  };
  std::size_t d_model_;
  std::vector<expert> experts_;
  std::function<void(const context_type&, rows_type)> forward_;
  std::function<void(const dry_type&, const hmoe::row_limits&)> lay_out_;
};

} // namespace support
