// SPDX-License-Identifier: MIT
// Packed weights (docs/simd.md), for inference.
#include <hmoe/core/scalar.hpp>

#include "batch_rows.hpp"
#include "context.hpp"
#include "group_bank.hpp"

#include <concepts>
#include <cstddef>
#include <memory>
#include <utility>

using namespace hmoe;
using namespace hmoe::python;

namespace {

/// The tensors of a bank as an experts::weight_source.
template <class S, std::size_t Lanes> class tensor_source {
public:
  static constexpr std::size_t lanes = Lanes;
  explicit tensor_source(const bank_memory& bank) : bank_(&bank) {}

  [[nodiscard]] std::size_t size() const noexcept { return bank_->experts.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return bank_->d_model; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return bank_->experts[e].width; }
  [[nodiscard]] bool has_biases() const noexcept { return bank_->biased; }
  void read(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const noexcept {
    const expert_memory& own = bank_->experts[e];
    const auto* from = static_cast<const S*>(m < lanes ? own.lanes[m] : own.output);
    const std::size_t stride = m < lanes ? own.lane_stride : own.output_stride;
    for (std::size_t r = 0; r < to.rows(); ++r)
      convert_row(from + (first + r) * stride, to.cols(), to.row(r).data());
  }
  void read_bias(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const noexcept {
    const expert_memory& own = bank_->experts[e];
    const auto* from = static_cast<const S*>(m < lanes ? own.lane_biases[m] : own.output_bias);
    for (std::size_t r = 0; r < to.rows(); ++r)
      to(r, 0) = static_cast<float>(from[first + r]);
  }

private:
  const bank_memory* bank_;
};

/// What all banks of packed weights do alike, compiled once.
class any_packed_bank : public packed_bank {
public:
  void forward(const batch& in, scalar type, void* y, const workers& threads, workspace& scratch) const override {
    if (type == scalar::bfloat16)
      run<bfloat16>(in, y, threads, scratch);
    else
      run<float>(in, y, threads, scratch);
  }
  [[nodiscard]] std::size_t bytes() const noexcept override {
    std::size_t sum = 0;
    for (std::size_t e = 0; e < size(); ++e)
      sum += bytes_of_expert(e);
    return sum;
  }

private:
  [[nodiscard]] virtual std::size_t size() const noexcept = 0;
  [[nodiscard]] virtual std::size_t d_model() const noexcept = 0;
  [[nodiscard]] virtual std::size_t bytes_of_expert(std::size_t e) const noexcept = 0;
  virtual void forward_rows(const pass_context& ctx, vector_view<const expert_rows<float>> rows) const = 0;

  template <class S> void run(const batch& in, void* to, const workers& threads, workspace& scratch) const {
    const pass_context ctx = make_context(step::linear, threads, scratch);
    const workspace::scope scope(ctx.workspace());
    std::pmr::memory_resource* const memory = &ctx.workspace();
    const std::size_t d = d_model(), experts = size();
    const batch_rows<float> rows(in, experts, memory);
    matrix<float> x_copy(memory), y_copy(memory);
    const matrix_view<const float> x = read_rows<float, S>(ctx, in.x, in.tokens, d, x_copy);
    const matrix_view<float> y = zero_rows<float, S>(ctx, to, in.tokens, d, y_copy);
    buffer<expert_rows<float>> work(std::min(experts, rows.plan().size()), memory);
    std::size_t busy = 0;
    for (std::size_t e = 0; e < experts; ++e)
      if (rows.plan().rows_of(e) != 0) {
        work[busy] = rows.rows_of(e);
        work[busy].x = x;
        work[busy++].y = y;
      }
    if (busy != 0)
      forward_rows(ctx, std::as_const(work).view().subview(0, busy));
    write_rows<float, S>(ctx, y, to);
  }
};

/// Bank: a backends::packed_bank.
template <class Bank> class packed_in final : public any_packed_bank {
public:
  explicit packed_in(Bank bank) : bank_(std::move(bank)) {}

private:
  [[nodiscard]] std::size_t size() const noexcept override { return bank_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept override { return bank_.d_model(); }
  [[nodiscard]] std::size_t bytes_of_expert(std::size_t e) const noexcept override { return bank_.bytes(e); }
  void forward_rows(const pass_context& ctx, vector_view<const expert_rows<float>> rows) const override {
    bank_.forward_rows(ctx, rows);
  }

  Bank bank_;
};

template <class Format, class Source, class Gate>
std::unique_ptr<packed_bank> pack_source(const Source& source, const Gate& gate) {
  auto bank = backends::simd<>::pack<Format>(source, gate);
  return std::make_unique<packed_in<decltype(bank)>>(std::move(bank));
}
template <class Format, class S> std::unique_ptr<packed_bank> pack_tensors(const bank_memory& bank) {
  if (bank.gated)
    return pack_source<Format>(tensor_source<S, 2>(bank), chosen_gate{bank.function, bank.limit, bank.alpha});
  return with_activation(
      bank.function, [&]<class A>(A activation) { return pack_source<Format>(tensor_source<S, 1>(bank), activation); });
}
template <class Format> std::unique_ptr<packed_bank> packed_as(const bank_memory& bank) {
  return bank.type == scalar::bfloat16 ? pack_tensors<Format, bfloat16>(bank) : pack_tensors<Format, float>(bank);
}

} // namespace

std::unique_ptr<packed_bank> HMOE_ISA::pack_experts(const bank_memory& bank, weight_format format) {
  require(bank.type != scalar::float64, "packed weights are computed in float32: run these of float64 as they are");
  switch (format) {
  case weight_format::f32:
    return packed_as<backends::formats::f32>(bank);
  case weight_format::bf16:
    return packed_as<backends::formats::bf16>(bank);
  case weight_format::q8_channel:
    return packed_as<backends::formats::q8_channel>(bank);
  case weight_format::q4:
    break;
  }
  return packed_as<backends::formats::q4>(bank);
}
