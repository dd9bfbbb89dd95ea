// SPDX-License-Identifier: MIT
#include "bank.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace hmoe::python {

step step_named(const std::string& name) {
  constexpr std::pair<const char*, step> names[] = {{"silu", step::silu},
                                                    {"gelu", step::gelu},
                                                    {"gelu_tanh", step::gelu_tanh},
                                                    {"relu", step::relu},
                                                    {"relu2", step::squared_relu},
                                                    {"linear", step::linear},
                                                    {"gpt_oss", step::gpt_oss},
                                                    {"silu_then_limit", step::silu_then_limit},
                                                    {"softcapped", step::softcapped}};
  std::string known;
  for (const auto& [each, which] : names) {
    if (name == each)
      return which;
    known += (known.empty() ? "" : ", ") + std::string(each);
  }
  fail("there is no activation \"" + name + "\" for experts; known are " + known);
}

bank::bank(std::size_t d_model, const std::vector<std::size_t>& widths, array input, array output,
           std::optional<array> input_bias, std::optional<array> output_bias, const options& how, bool writable)
    : writable_(writable) {
  memory_.type = type_of(input, "input weights");
  memory_.d_model = d_model;
  memory_.gated = how.gated;
  memory_.biased = input_bias.has_value();
  memory_.function = step_named(how.function);
  memory_.limit = how.limit;
  memory_.alpha = how.alpha;
  require(d_model >= 1 && !widths.empty(), "experts of d_model ", d_model, " and ", widths.size(),
          " widths: there must be some");
  require(how.limit > 0, "a limit of ", how.limit, ": give one above 0, or infinity for none");
  const bool joins = memory_.function == step::gpt_oss || memory_.function == step::silu_then_limit ||
                     memory_.function == step::softcapped;
  require(how.gated || !joins, how.function, " joins a gate and up: the experts have no gate");
  require(memory_.function != step::softcapped ||
              (std::isfinite(how.limit) && how.alpha > 0 && std::isfinite(how.alpha)),
          "softcapped with caps of ", how.limit, " and ", how.alpha, ": both must be above 0 and finite");
  require(how.gated || how.limit == std::numeric_limits<double>::infinity(), "a limit of ", how.limit,
          " clamps a gate and up: the experts have no gate");
  require(input_bias.has_value() == output_bias.has_value(),
          "biases of one projection only: give both, zeros where there are none");
  std::size_t hidden = 0;
  for (const std::size_t h : widths)
    hidden += h;
  const std::size_t bytes = bytes_of(memory_.type);
  auto* in =
      static_cast<std::byte*>(values_of_any_shape(input, memory_.type, lanes() * hidden * d_model, "input weights"));
  auto* out = static_cast<std::byte*>(values_of_any_shape(output, memory_.type, hidden * d_model, "output weights"));
  std::byte *in_bias = nullptr, *out_bias = nullptr;
  if (memory_.biased) {
    in_bias = static_cast<std::byte*>(values_of_any_shape(*input_bias, memory_.type, lanes() * hidden, "input biases"));
    out_bias = static_cast<std::byte*>(
        values_of_any_shape(*output_bias, memory_.type, widths.size() * d_model, "output biases"));
  }
  for (const std::size_t h : widths) {
    expert_memory e;
    e.width = h;
    e.lane_stride = (how.interleaved ? lanes() : 1) * d_model;
    e.output_stride = h;
    e.output = out;
    for (std::size_t l = 0; l < lanes(); ++l) {
      e.lanes[l] = in + l * (how.interleaved ? 1 : h) * d_model * bytes;
      if (memory_.biased)
        e.lane_biases[l] = in_bias + l * h * bytes;
    }
    e.output_bias = out_bias;
    memory_.experts.push_back(e);
    in += lanes() * h * d_model * bytes;
    out += h * d_model * bytes;
    if (memory_.biased) {
      in_bias += lanes() * h * bytes;
      out_bias += d_model * bytes;
    }
  }
  owners_ = {std::move(input), std::move(output)};
  if (memory_.biased) {
    owners_.push_back(std::move(*input_bias));
    owners_.push_back(std::move(*output_bias));
  }
}

std::size_t bank::saved_values(std::size_t tokens, std::size_t choices) const noexcept {
  std::size_t widest = 0;
  for (const expert_memory& e : memory_.experts)
    widest = std::max(widest, e.width);
  return tokens * choices * (lanes() + 1) * widest;
}

} // namespace hmoe::python
