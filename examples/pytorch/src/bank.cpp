// SPDX-License-Identifier: MIT
#include "bank.hpp"

#include <hmoe/core/huge_pages.hpp>

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

step step_of(const bank::options& how) {
  const step function = step_named(how.function);
  require(how.limit > 0, "a limit of ", how.limit, ": give one above 0, or infinity for none");
  const bool joins = function == step::gpt_oss || function == step::silu_then_limit || function == step::softcapped;
  require(how.gated || !joins, how.function, " joins a gate and up: the experts have no gate");
  require(function != step::softcapped || (std::isfinite(how.limit) && how.alpha > 0 && std::isfinite(how.alpha)),
          "softcapped with caps of ", how.limit, " and ", how.alpha, ": both must be above 0 and finite");
  require(how.gated || how.limit == std::numeric_limits<double>::infinity(), "a limit of ", how.limit,
          " clamps a gate and up: the experts have no gate");
  return function;
}

bank::bank(std::size_t d_model, const std::vector<std::size_t>& widths, array input, array output,
           std::optional<array> input_bias, std::optional<array> output_bias, const options& how, bool writable)
    : writable_(writable) {
  memory_.type = type_of(input, "input weights");
  memory_.d_model = d_model;
  memory_.gated = how.gated;
  memory_.biased = input_bias.has_value();
  memory_.function = step_of(how);
  memory_.limit = how.limit;
  memory_.alpha = how.alpha;
  require(d_model >= 1 && !widths.empty(), "experts of d_model ", d_model, " and ", widths.size(),
          " widths: there must be some");
  require(input_bias.has_value() == output_bias.has_value(),
          "biases of one projection only: give both, zeros where there are none");
  memory_.interleaved = how.interleaved;
  memory_.transposed = how.transposed;
  for (const std::size_t h : widths) {
    expert_memory e;
    e.width = h;
    e.lane_stride = how.transposed ? lanes() * h : (how.interleaved ? lanes() : 1) * d_model;
    e.output_stride = how.transposed ? d_model : h;
    memory_.experts.push_back(e);
  }
  place(std::move(input), std::move(output), std::move(input_bias), std::move(output_bias));
}

bank bank::gradients(std::optional<array> input, std::optional<array> output, std::optional<array> input_bias,
                     std::optional<array> output_bias) const {
  require(memory_.biased || !(input_bias || output_bias), "gradients of biases: the experts have none");
  bank result(*this);
  result.owners_.clear();
  result.writable_ = true;
  for (const auto* each : {&input, &output})
    if (*each) // where memory is new, its pages are made when they are first written
      prefer_huge_pages(const_cast<void*>((*each)->data()), (*each)->nbytes());
  result.place(std::move(input), std::move(output), std::move(input_bias), std::move(output_bias));
  return result;
}

void bank::place(std::optional<array> input, std::optional<array> output, std::optional<array> input_bias,
                 std::optional<array> output_bias) {
  const std::size_t bytes = bytes_of(memory_.type), d_model = memory_.d_model;
  std::size_t hidden = 0;
  for (const expert_memory& e : memory_.experts)
    hidden += e.width;
  const auto first_of = [&](std::optional<array>& values, std::size_t size, std::string_view name) -> std::byte* {
    if (!values)
      return nullptr;
    auto* const first = static_cast<std::byte*>(values_of_any_shape(*values, memory_.type, size, name));
    owners_.push_back(std::move(*values));
    return first;
  };
  std::byte* in = first_of(input, lanes() * hidden * d_model, "input weights");
  std::byte* out = first_of(output, hidden * d_model, "output weights");
  std::byte* in_bias = first_of(input_bias, lanes() * hidden, "input biases");
  std::byte* out_bias = first_of(output_bias, memory_.experts.size() * d_model, "output biases");
  const auto behind = [&](std::byte* at, std::size_t values) { return at == nullptr ? at : at + values * bytes; };
  for (expert_memory& e : memory_.experts) {
    for (std::size_t l = 0; l < lanes(); ++l) {
      e.lanes[l] = behind(in, l * (memory_.interleaved ? 1 : e.width) * (memory_.transposed ? 1 : d_model));
      e.lane_biases[l] = behind(in_bias, l * e.width);
    }
    e.output = out;
    e.output_bias = out_bias;
    in = behind(in, lanes() * e.width * d_model);
    out = behind(out, e.width * d_model);
    in_bias = behind(in_bias, lanes() * e.width);
    out_bias = behind(out_bias, d_model);
  }
}

std::size_t bank::saved_values(std::size_t tokens, std::size_t choices) const noexcept {
  std::size_t widest = 0;
  for (const expert_memory& e : memory_.experts)
    widest = std::max(widest, e.width);
  return tokens * choices * (lanes() + 1) * widest;
}

} // namespace hmoe::python
