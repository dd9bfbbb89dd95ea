// SPDX-License-Identifier: MIT
// The module hmoe._core: passes over experts on the memory of arrays. It knows nothing of torch.
#include <hmoe/version.hpp>

#include "arrays.hpp"
#include "bank.hpp"
#include "kernel.hpp"
#include "nn.hpp"
#include "passes.hpp"
#include "thread_pool.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::python {
namespace {

using std::size_t;

[[nodiscard]] scalar sums_of(scalar type) noexcept { return type == scalar::float64 ? type : scalar::float32; }

[[nodiscard]] batch batch_of(scalar type, size_t d_model, const array& x, const array& ids, const array& weights) {
  const array_view tokens(ids);
  require(tokens.shape.size() == 2, "ids have ", tokens.shape.size(), " dimensions: needed are [tokens, choices]");
  batch in;
  in.tokens = tokens.shape[0];
  in.choices = tokens.shape[1];
  in.ids = ids_of(tokens, {in.tokens, in.choices}, "ids");
  in.weights = values_of(weights, sums_of(type), {in.tokens, in.choices}, "weights");
  in.x = values_of(x, type, {in.tokens, d_model}, "x");
  return in;
}

/// Whether passes with gradients read and write transposed matrices of this type (bank_memory::transposed).
[[nodiscard]] bool takes_transposed(scalar type) {
  return type == scalar::float32 ||
         (type == scalar::bfloat16 && isa::selected_level(forward_float) == isa::level::v4_bf16);
}
void require_order(const bank_memory& experts, bool gradients) {
  require(!experts.transposed || (gradients && takes_transposed(experts.type)), "transposed weights of ",
          name_of(experts.type), gradients ? ", with gradients" : ", without gradients", ": give their rows");
}

void forward(const bank& experts, const array& x, const array& ids, const array& weights, const output_array& y,
             const std::optional<output_array>& saved, const std::optional<output_array>& outputs, size_t threads) {
  const bank_memory& memory = experts.memory();
  forward_pass pass;
  pass.bank = &memory;
  pass.in = batch_of(memory.type, memory.d_model, x, ids, weights);
  pass.y = values_of(y, memory.type, {pass.in.tokens, memory.d_model}, "y");
  require_disjoint(y, "y", x, "x");
  require(saved.has_value() == outputs.has_value(), "saved and outputs: give both, or neither");
  pass.record = saved.has_value();
  require_order(memory, pass.record);
  if (saved) {
    const scalar sums = sums_of(memory.type);
    pass.saved = values_of(*saved, sums, {experts.saved_values(pass.in.tokens, pass.in.choices)}, "saved");
    pass.outputs = values_of(*outputs, sums, {pass.in.tokens * pass.in.choices, memory.d_model}, "outputs");
  }
  const pool_threads pool(threads);
  auto* const run = memory.type == scalar::float64 ? kernel<forward_double>() : kernel<forward_float>();
  const nb::gil_scoped_release released;
  const lent_workspace scratch;
  pass.threads = &pool;
  pass.scratch = scratch.get();
  run(pass);
}

void backward(const bank& experts, const array& x, const array& ids, const array& weights, const array& dy,
              const array& saved, const array& outputs, const std::optional<output_array>& dx,
              const std::optional<output_array>& d_weights, const bank* gradients, size_t threads) {
  const bank_memory& memory = experts.memory();
  require_order(memory, true);
  const scalar sums = sums_of(memory.type);
  backward_pass pass;
  pass.bank = &memory;
  pass.in = batch_of(memory.type, memory.d_model, x, ids, weights);
  pass.dy = values_of(dy, memory.type, {pass.in.tokens, memory.d_model}, "dy");
  pass.saved = values_of(saved, sums, {experts.saved_values(pass.in.tokens, pass.in.choices)}, "saved");
  pass.outputs = values_of(outputs, sums, {pass.in.tokens * pass.in.choices, memory.d_model}, "outputs");
  if (dx) {
    pass.dx = values_of(*dx, memory.type, {pass.in.tokens, memory.d_model}, "dx");
    require_disjoint(*dx, "dx", x, "x");
    require_disjoint(*dx, "dx", dy, "dy");
  }
  if (d_weights) {
    pass.d_weights = values_of(*d_weights, sums, {pass.in.tokens, pass.in.choices}, "d_weights");
    require_disjoint(*d_weights, "d_weights", weights, "weights");
  }
  if (gradients != nullptr) {
    require(gradients->writable(), "the gradients are a bank on arrays that are read-only");
    const bank_memory& to = gradients->memory();
    bool same = to.type == memory.type && to.transposed == memory.transposed && to.d_model == memory.d_model &&
                to.gated == memory.gated && to.biased == memory.biased && to.experts.size() == memory.experts.size();
    for (size_t e = 0; same && e < to.experts.size(); ++e)
      same = to.experts[e].width == memory.experts[e].width;
    require(same, "the gradients are a bank of another shape than the experts");
    pass.gradients = &to;
  }
  const pool_threads pool(threads);
  auto* const run = memory.type == scalar::float64 ? kernel<backward_double>() : kernel<backward_float>();
  const nb::gil_scoped_release released;
  const lent_workspace scratch;
  pass.threads = &pool;
  pass.scratch = scratch.get();
  run(pass);
}

/// What `_core.PackedBank` is: packed weights for inference, on memory of its own.
class packed {
public:
  packed(const bank& experts, const std::string& format) : packed(experts.memory(), format) {}
  packed(const bank_memory& experts, const std::string& format) : type_(experts.type), d_model_(experts.d_model) {
    const weight_format which = format_named(format);
    require_order(experts, false);
    auto* const pack = kernel<pack_experts>();
    const nb::gil_scoped_release released;
    held_ = pack(experts, which);
  }
  void forward(const array& x, const array& ids, const array& weights, const output_array& y, size_t threads) const {
    const batch in = batch_of(type_, d_model_, x, ids, weights);
    void* const to = values_of(y, type_, {in.tokens, d_model_}, "y");
    require_disjoint(y, "y", x, "x");
    const pool_threads pool(threads);
    const nb::gil_scoped_release released;
    const lent_workspace scratch;
    held_->forward(in, type_, to, pool, *scratch);
  }
  [[nodiscard]] size_t bytes() const noexcept { return held_->bytes(); }

private:
  [[nodiscard]] static weight_format format_named(const std::string& name) {
    if (name == "f32")
      return weight_format::f32;
    if (name == "bf16")
      return weight_format::bf16;
    if (name == "q8_channel")
      return weight_format::q8_channel;
    require(name == "q4", "there is no format \"", name, "\" for packed weights; known are f32, bf16, q8_channel, q4");
    return weight_format::q4;
  }
  scalar type_;
  size_t d_model_;
  std::unique_ptr<packed_bank> held_;
};

template <class Array> [[nodiscard]] std::optional<array> given(const std::optional<Array>& values) {
  std::optional<array> result;
  if (values)
    result.emplace(*values);
  return result;
}

/// Bank(...) on arrays that may be written, or that may not.
template <class Array> void add_constructor(nb::class_<bank>& experts, bool writable) {
  experts.def(
      "__init__",
      [writable](bank* self, size_t d_model, const std::vector<size_t>& widths, const Array& input, const Array& output,
                 const std::optional<Array>& input_bias, const std::optional<Array>& output_bias,
                 const std::string& function, double limit, double alpha, bool gated, bool interleaved,
                 bool transposed) {
        new (self) bank(d_model, widths, array(input), array(output), given(input_bias), given(output_bias),
                        {function, limit, alpha, gated, interleaved, transposed}, writable);
      },
      nb::arg("d_model"), nb::arg("widths"), nb::arg("input"), nb::arg("output"), nb::arg("input_bias") = nb::none(),
      nb::arg("output_bias") = nb::none(), nb::kw_only(), nb::arg("function") = "silu",
      nb::arg("limit") = std::numeric_limits<double>::infinity(), nb::arg("alpha") = 1.702, nb::arg("gated") = true,
      nb::arg("interleaved") = false, nb::arg("transposed") = false);
}

} // namespace

NB_MODULE(_core, module) {
  module.attr("__version__") = std::to_string(HMOE_VERSION_MAJOR) + "." + std::to_string(HMOE_VERSION_MINOR) + "." +
                               std::to_string(HMOE_VERSION_PATCH);
  [[maybe_unused]] const nb::exception<hmoe::error> error(module, "Error", PyExc_ValueError); // its making registers it

  nb::class_<bank> experts(module, "Bank", "Experts on the memory of arrays.");
  add_constructor<output_array>(experts, true);
  add_constructor<array>(experts, false);
  experts.def(
      "gradients",
      [](const bank& self, const std::optional<output_array>& input, const std::optional<output_array>& output,
         const std::optional<output_array>& input_bias, const std::optional<output_array>& output_bias) {
        return self.gradients(given(input), given(output), given(input_bias), given(output_bias));
      },
      nb::arg("input") = nb::none(), nb::arg("output") = nb::none(), nb::arg("input_bias") = nb::none(),
      nb::arg("output_bias") = nb::none(),
      "A bank of the same shape on arrays to write gradients to: backward computes those that are given.");
  experts.def("saved_values", &bank::saved_values, nb::arg("tokens"), nb::arg("choices"));

  nb::class_<packed>(module, "PackedBank", "The weights of a Bank in the order of the kernels, for inference.")
      .def(nb::init<const bank&, const std::string&>(), nb::arg("bank"), nb::arg("format"))
      .def(nb::init<const bank_memory&, const std::string&>(), nb::arg("bank"), nb::arg("format"))
      .def("forward", &packed::forward, nb::arg("x"), nb::arg("ids"), nb::arg("weights"), nb::arg("y"), nb::kw_only(),
           nb::arg("threads") = 1)
      .def_prop_ro("bytes", &packed::bytes);

  module.def("forward", forward, nb::arg("bank"), nb::arg("x"), nb::arg("ids"), nb::arg("weights"), nb::arg("y"),
             nb::arg("saved") = nb::none(), nb::arg("outputs") = nb::none(), nb::kw_only(), nb::arg("threads") = 1);
  module.def("backward", backward, nb::arg("bank"), nb::arg("x"), nb::arg("ids"), nb::arg("weights"), nb::arg("dy"),
             nb::arg("saved"), nb::arg("outputs"), nb::arg("dx") = nb::none(), nb::arg("d_weights") = nb::none(),
             nb::arg("gradients") = nb::none(), nb::kw_only(), nb::arg("threads") = 1,
             "Writes those gradients that are given and computes no others.");

  module.def(
      "takes_transposed",
      [](const std::string& type) {
        return (type == "float32" && takes_transposed(scalar::float32)) ||
               (type == "bfloat16" && takes_transposed(scalar::bfloat16));
      },
      nb::arg("type"), "Whether passes with gradients take transposed matrices of a type on this CPU.");

  prepare_for_fork();
  add_nn(module);
  module.def(
      "instructions", [] { return std::string(isa::name(isa::selected_level(forward_float))); },
      "The instruction set that the passes use on this CPU: HMOE_ISA, or the best that was built.");
  module.def("built_for", [] {
    std::vector<std::string> names;
    for (const isa::level each : forward_float.levels())
      names.emplace_back(isa::name(each));
    return names;
  });
  module.def("scratch_bytes", scratch_bytes, "Bytes that are held for the next passes.");
  module.def("release_scratch", release_scratch, "Gives them back.");
}

} // namespace hmoe::python
