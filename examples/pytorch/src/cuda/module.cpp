// SPDX-License-Identifier: MIT
// The module hmoe._cuda: passes over experts on a GPU. It knows nothing of torch and takes addresses: hmoe/_cuda_ops.py
// looks at types, shapes and devices of the tensors. (DLPack would make the default stream wait for the current one, or
// the other way round, at each call.)
#include "../bank.hpp"
#include "device_experts.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <vector>

namespace hmoe::python {
namespace {

namespace nb = nanobind;
using std::size_t;
using address = std::uintptr_t;

template <class T> [[nodiscard]] T* at(address where) noexcept {
  return reinterpret_cast<T*>(where); // NOLINT(performance-no-int-to-ptr)
}

[[nodiscard]] std::unique_ptr<device_experts> make(size_t d_model, const std::vector<size_t>& widths,
                                                   const std::string& type, const std::string& function, double limit,
                                                   double alpha, bool gated) {
  device_experts::options how{scalar::float32, gated, step_of({function, limit, alpha, gated, false}), limit, alpha};
  if (type == "float64")
    how.type = scalar::float64;
  else if (type == "bfloat16")
    how.type = scalar::bfloat16;
  else
    require(type == "float32", "experts of ", type, " on a GPU: there are kernels for float32 and bfloat16");
  return device_experts::make(d_model, widths, how);
}

/// (device, stream, table, workspace, bytes of the workspace, tf32)
using place_tuple = std::tuple<int, address, address, address, size_t, bool>;
[[nodiscard]] device_place place_of(const place_tuple& p) {
  return {std::get<0>(p),
          at<CUstream_st>(std::get<1>(p)),
          at<const std::byte>(std::get<2>(p)),
          at<std::byte>(std::get<3>(p)),
          std::get<4>(p),
          std::get<5>(p)};
}
/// (in, out, in_bias, out_bias); 0: none
using tensors_tuple = std::tuple<address, address, address, address>;
[[nodiscard]] device_weights weights_of(const tensors_tuple& t) {
  return {at<const void>(std::get<0>(t)), at<const void>(std::get<1>(t)), at<const float>(std::get<2>(t)),
          at<const float>(std::get<3>(t))};
}
[[nodiscard]] device_gradients gradients_of(const tensors_tuple& t) {
  return {at<float>(std::get<0>(t)), at<float>(std::get<1>(t)), at<float>(std::get<2>(t)), at<float>(std::get<3>(t))};
}
/// (tokens, choices, x, ids, weights)
using batch_tuple = std::tuple<size_t, size_t, address, address, address>;
[[nodiscard]] device_batch batch_of(const batch_tuple& b) {
  return {std::get<0>(b), std::get<1>(b), at<const void>(std::get<2>(b)), at<const std::int64_t>(std::get<3>(b)),
          at<const float>(std::get<4>(b))};
}
/// (hidden, outputs); 0: nothing is kept
using kept_tuple = std::tuple<address, address>;
[[nodiscard]] device_kept kept_of(const kept_tuple& k) { return {at<void>(std::get<0>(k)), at<float>(std::get<1>(k))}; }

} // namespace

NB_MODULE(_cuda, module) {
  // Errors are those of hmoe._core.
  const nb::object error_type = nb::module_::import_("hmoe._core").attr("Error");
  nb::register_exception_translator(
      [](const std::exception_ptr& thrown, void* type) {
        try {
          std::rethrow_exception(thrown);
        } catch (const hmoe::error& e) {
          PyErr_SetString(static_cast<PyObject*>(type), e.what());
        }
      },
      nb::object(error_type).release().ptr());

  nb::class_<device_experts>(module, "Experts", "Experts of one kind and shape on a GPU, without their weights.")
      .def(nb::new_(&make), nb::arg("d_model"), nb::arg("widths"), nb::kw_only(), nb::arg("type") = "float32",
           nb::arg("function") = "silu", nb::arg("limit") = std::numeric_limits<double>::infinity(),
           nb::arg("alpha") = 1.702, nb::arg("gated") = true)
      .def_prop_ro(
          "table",
          [](const device_experts& self) {
            const std::vector<std::byte> bytes = self.table();
            return nb::bytes(bytes.data(), bytes.size());
          },
          "What passes read of it on the device, at an address aligned to 256 bytes.")
      .def_prop_ro(
          "sizes",
          [](const device_experts& self) {
            const auto& layout = self.layout();
            return std::tuple(layout.in_size(), layout.out_size(), layout.in_bias_size(), layout.out_bias_size());
          },
          "Values of the input weights, output weights, and biases of both.")
      .def("hidden_values", &device_experts::hidden_values, nb::arg("tokens"), nb::arg("choices"))
      .def("forward_bytes", &device_experts::forward_bytes, nb::arg("tokens"), nb::arg("choices"), nb::arg("keeps"))
      .def("backward_bytes", &device_experts::backward_bytes, nb::arg("tokens"), nb::arg("choices"))
      .def(
          "forward",
          [](const device_experts& self, const place_tuple& place, const tensors_tuple& weights,
             const batch_tuple& batch, address y, const kept_tuple& kept) {
            self.forward(place_of(place), weights_of(weights), batch_of(batch), at<void>(y), kept_of(kept));
          },
          nb::arg("place"), nb::arg("weights"), nb::arg("batch"), nb::arg("y"), nb::arg("kept"),
          nb::call_guard<nb::gil_scoped_release>())
      .def(
          "backward",
          [](const device_experts& self, const place_tuple& place, const tensors_tuple& weights,
             const batch_tuple& batch, address dy, const kept_tuple& kept, address dx, address d_weights,
             const tensors_tuple& gradients) {
            self.backward(place_of(place), weights_of(weights), batch_of(batch), at<const void>(dy), kept_of(kept),
                          at<void>(dx), at<float>(d_weights), gradients_of(gradients));
          },
          nb::arg("place"), nb::arg("weights"), nb::arg("batch"), nb::arg("dy"), nb::arg("kept"), nb::arg("dx"),
          nb::arg("d_weights"), nb::arg("gradients"), nb::call_guard<nb::gil_scoped_release>());
}

} // namespace hmoe::python
