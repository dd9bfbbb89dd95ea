// SPDX-License-Identifier: MIT
// What hmoe.nn calls. Tensors come as addresses: its operators have checked types, shapes and contiguity.
#include "nn.hpp"

#include <hmoe/core/error.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "auxiliary.hpp"
#include "calibrations.hpp"
#include "kernel.hpp"
#include "layer_files.hpp"
#include "passes.hpp"
#include "routes.hpp"
#include "thread_pool.hpp"
#include "without_neurons.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace hmoe::python {
namespace {

namespace nb = nanobind;
using std::size_t;
using address = std::uintptr_t;

/// Python knows memory by its address.
template <class T = void> [[nodiscard]] T* at(address where) noexcept {
  return reinterpret_cast<T*>(where); // NOLINT(performance-no-int-to-ptr)
}

/// The place of a name in a list; hmoe::error that names all others.
[[nodiscard]] size_t place_of(std::string_view name, std::string_view what, std::span<const std::string_view> names) {
  std::string known;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name)
      return i;
    known.append(i == 0 ? "" : i + 1 == names.size() ? " and " : ", ").append(names[i]);
  }
  fail("no " + std::string(what) + " named '" + std::string(name) + "': known are " + known);
}

/// A kind in the words of io::ragged_manifest, "glu.silu" or "mlp.relu".
struct kind_of_experts {
  bool gated;
  step function;
};
[[nodiscard]] kind_of_experts parse_kind(const std::string& kind) {
  constexpr std::string_view names[] = {"silu", "gelu", "gelu_tanh", "relu", "squared_relu", "linear", "gpt_oss"};
  constexpr step steps[] = {step::silu,         step::gelu,   step::gelu_tanh, step::relu,
                            step::squared_relu, step::linear, step::gpt_oss}; // MLPs: all but the last
  const size_t dot = kind.find('.');
  constexpr std::string_view forms[] = {"mlp", "glu"};
  const bool gated = place_of(std::string_view(kind).substr(0, dot), "kind of experts", forms) == 1;
  const std::string_view name = dot == std::string::npos ? std::string_view() : std::string_view(kind).substr(dot + 1);
  return {gated, steps[place_of(name, "activation of experts", std::span(names).first(gated ? 7 : 6))]};
}

/// The experts of a layer on tensors of their own. `tensors`: expert after expert gate, up and down (an MLP has no
/// gate), then their biases, where there are some. `output_strides`: values from row to row of down; none: its width.
[[nodiscard]] bank_memory make_bank(const std::string& kind, const std::string& type, size_t d_model,
                                    const std::vector<size_t>& widths, bool biased, const std::vector<address>& tensors,
                                    const std::vector<size_t>& output_strides) {
  constexpr std::string_view types[] = {"float32", "float64", "bfloat16"};
  const kind_of_experts form = parse_kind(kind);
  bank_memory bank;
  bank.type = static_cast<scalar>(place_of(type, "type of weights", types));
  bank.d_model = d_model;
  bank.gated = form.gated;
  bank.biased = biased;
  bank.function = form.function;
  if (form.function == step::gpt_oss)
    bank.limit = 7;
  const size_t lanes = bank.gated ? 2 : 1, per_expert = (lanes + 1) * (biased ? 2 : 1);
  require(tensors.size() == per_expert * widths.size(), "given are ", tensors.size(), " tensors, needed are ",
          per_expert, " for each of ", widths.size(), " experts");
  require(output_strides.empty() || output_strides.size() == widths.size(), "given are ", output_strides.size(),
          " distances of rows for ", widths.size(), " experts");
  bank.experts.resize(widths.size());
  for (size_t e = 0; e < widths.size(); ++e) {
    expert_memory& expert = bank.experts[e];
    const address* next = tensors.data() + e * per_expert;
    expert.width = widths[e];
    expert.lane_stride = d_model;
    expert.output_stride = output_strides.empty() ? widths[e] : output_strides[e];
    for (size_t l = 0; l < lanes; ++l)
      expert.lanes[l] = at(*next++);
    expert.output = at(*next++);
    if (biased) {
      for (size_t l = 0; l < lanes; ++l)
        expert.lane_biases[l] = at(*next++);
      expert.output_bias = at(*next);
    }
  }
  return bank;
}

[[nodiscard]] batch make_batch(size_t tokens, size_t choices, address ids, address weights, address x) {
  batch in;
  in.tokens = tokens;
  in.choices = choices;
  in.ids = at<const std::int64_t>(ids);
  in.weights = at(weights);
  in.x = at(x);
  return in;
}

/// Sets threads and scratch memory of a pass and runs it without the interpreter's lock.
template <class Pass, class Run> void run_released(Pass& pass, size_t threads, Run* run) {
  const pool_threads pool(threads);
  const nb::gil_scoped_release released;
  const lent_workspace scratch;
  pass.threads = &pool;
  pass.scratch = scratch.get();
  run(pass);
}

void run_bank(const bank_memory& bank, size_t tokens, size_t choices, address ids, address weights, address x,
              address y, address saved, address outputs, bool record, size_t threads) {
  forward_pass pass;
  pass.bank = &bank;
  pass.in = make_batch(tokens, choices, ids, weights, x);
  pass.y = at(y);
  pass.record = record;
  pass.saved = at(saved);
  pass.outputs = at(outputs);
  run_released(pass, threads, bank.type == scalar::float64 ? kernel<forward_double>() : kernel<forward_float>());
}

void run_bank_backward(const bank_memory& bank, size_t tokens, size_t choices, address ids, address weights, address x,
                       address dy, address saved, address outputs, address dx, address d_weights,
                       const bank_memory& gradients, size_t threads) {
  backward_pass pass;
  pass.bank = &bank;
  pass.in = make_batch(tokens, choices, ids, weights, x);
  pass.dy = at(dy);
  pass.saved = at(saved);
  pass.outputs = at(outputs);
  pass.dx = at(dx);
  pass.d_weights = at(d_weights);
  pass.gradients = &gradients;
  run_released(pass, threads, bank.type == scalar::float64 ? kernel<backward_double>() : kernel<backward_float>());
}

/// A router by the names of its parts; hmoe::error for others and for a parameter that does not fit.
[[nodiscard]] router_memory make_router(size_t d_model, size_t experts, const std::string& score,
                                        const std::string& select, double parameter, const std::string& weigh) {
  constexpr std::string_view scores[] = {"softmax", "sigmoid", "sqrt_softplus", "relu"};
  constexpr std::string_view selections[] = {"top_k", "top_p", "threshold"};
  constexpr std::string_view weightings[] = {"renormalized", "raw", "softmax_over_selected", "sigmoid_of_logit",
                                             "equal_weights"};
  require(d_model >= 1 && experts >= 1, "a router from d_model = ", d_model, " to ", experts,
          " experts: both must be at least 1");
  router_memory router;
  router.d_model = d_model;
  router.experts = experts;
  router.score = static_cast<score_function>(place_of(score, "score function", scores));
  router.select = static_cast<selection>(place_of(select, "selection", selections));
  router.parameter = parameter;
  router.weigh = static_cast<weighting>(place_of(weigh, "weighting", weightings));
  switch (router.select) {
  case selection::top_k:
    require(parameter >= 1 && parameter <= static_cast<double>(experts), "top_k with k = ", parameter, " for ", experts,
            " experts: k must be 1 to ", experts);
    require(parameter == static_cast<double>(static_cast<size_t>(parameter)), "top_k with k = ", parameter,
            ": k must be a whole number");
    break;
  case selection::top_p:
    routing::top_p{parameter}.validate(experts);
    break;
  case selection::threshold:
    routing::threshold{parameter}.validate(experts);
    break;
  }
  return router;
}

[[nodiscard]] routed make_routed(size_t tokens, size_t choices, address logits, address probabilities, address ids,
                                 address weights, address mask) {
  routed out;
  out.tokens = tokens;
  out.choices = choices;
  out.logits = at(logits);
  out.probabilities = at(probabilities);
  out.ids = at<std::int64_t>(ids);
  out.weights = at(weights);
  out.valid = at<const std::uint8_t>(mask);
  return out;
}

void run_router(const router_memory& router, bool wide, address weight, size_t tokens, address x, address mask,
                address logits, address probabilities, address ids, address weights, size_t threads) {
  router_memory on = router;
  on.weight = at(weight);
  route_pass pass;
  pass.router = &on;
  pass.x = at(x);
  pass.out = make_routed(tokens, choices_of(on), logits, probabilities, ids, weights, mask);
  run_released(pass, threads, wide ? kernel<route_double>() : kernel<route_float>());
}

void run_router_backward(const router_memory& router, bool wide, address weight, size_t tokens, address x, address mask,
                         address logits, address probabilities, address ids, address weights, address d_logits,
                         address d_probabilities, address d_weights, address dx, address d_weight, size_t threads) {
  router_memory on = router;
  on.weight = at(weight);
  route_backward_pass pass;
  pass.router = &on;
  pass.x = at(x);
  pass.out = make_routed(tokens, choices_of(on), logits, probabilities, ids, weights, mask);
  pass.d_logits = at(d_logits);
  pass.d_probabilities = at(d_probabilities);
  pass.d_weights = at(d_weights);
  pass.dx = at(dx);
  pass.d_weight = at(d_weight);
  run_released(pass, threads, wide ? kernel<route_backward_double>() : kernel<route_backward_float>());
}

[[nodiscard]] double auxiliary_loss(const std::string& name, bool wide, const std::vector<size_t>& widths,
                                    size_t tokens, size_t choices, address logits, address probabilities, address ids,
                                    address weights, address mask, address d_logits, address d_probabilities) {
  const routed in = make_routed(tokens, choices, logits, probabilities, ids, weights, mask);
  const nb::gil_scoped_release released;
  return wide ? evaluate_loss<double>(name, in, widths, at<double>(d_logits), at<double>(d_probabilities))
              : evaluate_loss<float>(name, in, widths, at<float>(d_logits), at<float>(d_probabilities));
}

/// Experts without neurons; `tensors`: mix and constant of each constant expert.
[[nodiscard]] std::vector<simple_expert> make_simple(const std::vector<std::string>& kinds,
                                                     const std::vector<address>& tensors) {
  constexpr std::string_view names[] = {"zero", "identity", "constant"};
  std::vector<simple_expert> experts(kinds.size());
  size_t next = 0;
  for (size_t e = 0; e < kinds.size(); ++e) {
    experts[e].kind = static_cast<simple_kind>(place_of(kinds[e], "kind of experts without neurons", names));
    if (experts[e].kind != simple_kind::constant)
      continue;
    require(next + 2 <= tensors.size(), "expert ", e, " is constant, and there are no tensors of it");
    experts[e].mix = at(tensors[next++]);
    experts[e].constant = at(tensors[next++]);
  }
  require(next == tensors.size(), tensors.size(), " tensors of experts without neurons, of which ", next,
          " are needed");
  return experts;
}

void run_simple(const std::vector<std::string>& kinds, const std::vector<address>& tensors, bool wide, size_t d_model,
                size_t tokens, size_t choices, address ids, address weights, address x, address y) {
  const std::vector<simple_expert> experts = make_simple(kinds, tensors);
  const batch in = make_batch(tokens, choices, ids, weights, x);
  const nb::gil_scoped_release released;
  wide ? run_simple_experts(experts, in, d_model, at<double>(y))
       : run_simple_experts(experts, in, d_model, at<float>(y));
}

void run_simple_backward(const std::vector<std::string>& kinds, const std::vector<address>& tensors, bool wide,
                         size_t d_model, size_t tokens, size_t choices, address ids, address weights, address x,
                         address dy, address dx, address d_weights, const std::vector<address>& gradients) {
  const std::vector<simple_expert> experts = make_simple(kinds, tensors), sums = make_simple(kinds, gradients);
  const batch in = make_batch(tokens, choices, ids, weights, x);
  const nb::gil_scoped_release released;
  if (wide)
    run_simple_experts_backward(experts, in, d_model, at<const double>(dy), at<double>(dx), at<double>(d_weights),
                                sums);
  else
    run_simple_experts_backward(experts, in, d_model, at<const float>(dy), at<float>(dx), at<float>(d_weights), sums);
}

/// prefix, whether values are double, d_model, kinds, widths, tensors: name, expert, address, rows, columns.
using tensor_tuple = std::tuple<std::string, size_t, address, size_t, size_t>;
using layer_tuple =
    std::tuple<std::string, bool, size_t, std::vector<std::string>, std::vector<size_t>, std::vector<tensor_tuple>>;

template <class T> [[nodiscard]] named_layer<T> make_layer(const layer_tuple& given) {
  const auto& [prefix, wide, d_model, kinds, widths, tensors] = given;
  std::vector<named_tensor> named;
  for (const auto& [name, expert, where, rows, cols] : tensors)
    named.push_back({name, expert < widths.size() ? expert : parameter_info::no_expert, at(where), rows, cols});
  return named_layer<T>(d_model, named_experts(kinds, widths), std::move(named));
}

void save_layers(const std::string& path, const std::vector<layer_tuple>& layers, const std::string& what,
                 const std::string& by, const std::string& from) {
  io::ragged_checkpoint_writer writer;
  std::deque<named_layer<float>> narrow; // the writer refers to them
  std::deque<named_layer<double>> wide;
  for (const layer_tuple& given : layers) {
    const io::ragged_reason reason{what, by, from};
    if (std::get<1>(given))
      writer.add(wide.emplace_back(make_layer<double>(given)), std::get<0>(given), reason);
    else
      writer.add(narrow.emplace_back(make_layer<float>(given)), std::get<0>(given), reason);
  }
  const nb::gil_scoped_release released;
  writer.write(path);
}

void load_layer(const std::string& path, const std::string& prefix, const layer_tuple& given) {
  const nb::gil_scoped_release released;
  const io::safetensors_file file{path};
  if (std::get<1>(given)) {
    auto layer = make_layer<double>(given);
    io::load_ragged_layer(file, layer, prefix);
  } else {
    auto layer = make_layer<float>(given);
    io::load_ragged_layer(file, layer, prefix);
  }
}

} // namespace

void add_nn(nb::module_& module) {
  nb::class_<bank_memory>(module, "TensorBank", "Experts on tensors of their own, which must outlive it.")
      .def(
          "__init__",
          [](bank_memory* self, const std::string& kind, const std::string& type, size_t d_model,
             const std::vector<size_t>& widths, bool biased, const std::vector<address>& tensors,
             const std::vector<size_t>& output_strides) {
            new (self) bank_memory(make_bank(kind, type, d_model, widths, biased, tensors, output_strides));
          },
          nb::arg("kind"), nb::arg("type"), nb::arg("d_model"), nb::arg("widths"), nb::arg("biased"),
          nb::arg("tensors"), nb::arg("output_strides") = std::vector<size_t>());
  module.def("check_experts", [](const std::string& kind, size_t d_model, const std::vector<size_t>& widths) {
    static_cast<void>(parse_kind(kind));
    require(d_model >= 1 && !widths.empty(), "experts of d_model ", d_model, " and ", widths.size(),
            " widths: needed are d_model >= 1 and at least one expert");
  });
  module.def("run_bank", run_bank);
  module.def("run_simple_experts", run_simple);
  module.def("run_simple_experts_backward", run_simple_backward);
  module.def("run_bank_backward", run_bank_backward);

  nb::class_<router_memory>(module, "RouterPolicies", "A score function, a selection and a weighting by their names.")
      .def("__init__",
           [](router_memory* self, size_t d_model, size_t experts, const std::string& score, const std::string& select,
              double parameter, const std::string& weigh) {
             new (self) router_memory(make_router(d_model, experts, score, select, parameter, weigh));
           })
      .def_prop_ro("choices", [](const router_memory& router) { return choices_of(router); });
  module.def("run_router", run_router);
  module.def("run_router_backward", run_router_backward);
  module.def("auxiliary_loss", auxiliary_loss);

  nb::class_<calibration_sums>(module, "CalibrationSums", "Sums over passes of a layer, of which importance is made.")
      .def("add",
           [](calibration_sums& self, const bank_memory& bank, size_t tokens, size_t choices, address ids,
              address weights, address saved, address outputs) {
             const nb::gil_scoped_release released;
             self.add(bank, make_batch(tokens, choices, ids, weights, 0), at(saved), at(outputs));
           })
      .def("add_gradient",
           [](calibration_sums& self, const bank_memory& bank, size_t tokens, size_t choices, address ids,
              address weights, address saved, address dy) {
             const nb::gil_scoped_release released;
             self.add_gradient(bank, make_batch(tokens, choices, ids, weights, 0), at(saved), at(dy));
           })
      .def("importance", &calibration_sums::importance)
      .def("within",
           [](const calibration_sums& self, const bank_memory& bank, const compress::neuron_values& importance,
              double share, const std::string& counted, size_t multiple, size_t least_width) {
             constexpr std::string_view costs[] = {"parameters", "flops"};
             const auto cost = static_cast<compress::cost>(place_of(counted, "cost of neurons", costs));
             return self.within(bank, importance, {share, cost, multiple, least_width});
           })
      .def("loads", &calibration_sums::loads);
  module.def("make_calibration", make_calibration);

  module.def("save_layers", save_layers);
  module.def("load_layer", load_layer);
  module.def("read_manifest",
             [](const std::string& path) { return io::read_ragged_manifest(io::safetensors_file{path}).to_json(); });

  using list = std::vector<size_t>;
  module.def("widths_uniform", [](size_t count, size_t total) -> list { return widths::uniform{count, total}; });
  module.def("widths_arithmetic", [](size_t count, size_t total, double first, double last, size_t multiple) -> list {
    return widths::arithmetic{count, total, first, last, multiple};
  });
  module.def("widths_geometric", [](size_t count, size_t total, double ratio, size_t multiple) -> list {
    return widths::geometric{count, total, ratio, multiple};
  });
  module.def("widths_hybrid", [](size_t count, size_t total, size_t multiple) -> list {
    return widths::hybrid{count, total, multiple};
  });
  module.def("widths_list", [](const std::vector<double>& relative, size_t total, size_t multiple) -> list {
    return widths::list{relative, total, multiple};
  });
}

} // namespace hmoe::python
