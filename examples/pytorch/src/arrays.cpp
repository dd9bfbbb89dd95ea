// SPDX-License-Identifier: MIT
#include "arrays.hpp"

#include <cstdint>

namespace hmoe::python {

namespace {
std::string shape_text(const array_view& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.shape.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(values.shape[i]);
  return text + "]";
}
} // namespace

std::string_view name_of(scalar type) noexcept {
  return type == scalar::float64 ? "float64" : type == scalar::float32 ? "float32" : "bfloat16";
}

scalar type_of(const array_view& values, std::string_view name) {
  const nb::dlpack::dtype type = values.type;
  if (type.lanes == 1 && type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 32)
    return scalar::float32;
  if (type.lanes == 1 && type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 64)
    return scalar::float64;
  if (type.lanes == 1 && type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.bits == 16)
    return scalar::bfloat16;
  fail(std::string(name) + " has a type of " + std::to_string(type.bits) +
       " bits that hmoe does not compute with: convert it to float32, float64 or bfloat16");
}

void require_type(const array_view& values, scalar type, std::string_view name) {
  const scalar own = type_of(values, name);
  require(own == type, name, " is of ", name_of(own), ", needed is ", name_of(type), ", as the experts' weights are");
}

void require_shape(const array_view& values, std::initializer_list<std::size_t> shape, std::string_view name) {
  bool same = values.shape.size() == shape.size();
  std::string needed = "[";
  std::size_t i = 0;
  for (const std::size_t n : shape) {
    needed += (i == 0 ? "" : ", ") + std::to_string(n);
    same = same && values.shape[i] == n;
    ++i;
  }
  require(same, name, " has the shape ", shape_text(values), ", needed is ", needed, "]");
}

void require_contiguous(const array_view& values, std::string_view name) {
  std::int64_t step = 1;
  bool contiguous = true;
  for (std::size_t i = values.shape.size(); i-- > 0;) {
    contiguous = contiguous && (values.shape[i] == 1 || values.strides[i] == step || values.size == 0);
    step *= static_cast<std::int64_t>(values.shape[i]);
  }
  require(contiguous, name, " of shape ", shape_text(values), " does not lie in memory row by row: call contiguous()");
}

void* values_of(const array_view& values, scalar type, std::initializer_list<std::size_t> shape,
                std::string_view name) {
  require_type(values, type, name);
  require_shape(values, shape, name);
  require_contiguous(values, name);
  return values.data;
}

const std::int64_t* ids_of(const array_view& values, std::initializer_list<std::size_t> shape, std::string_view name) {
  require(values.type == nb::dtype<std::int64_t>(), name, " are of another type than int64: convert them");
  require_shape(values, shape, name);
  require_contiguous(values, name);
  return static_cast<const std::int64_t*>(values.data);
}

void* values_of_any_shape(const array_view& values, scalar type, std::size_t size, std::string_view name) {
  require_type(values, type, name);
  require(values.size == size, name, " of shape ", shape_text(values), " has ", values.size, " values, needed are ",
          size);
  require_contiguous(values, name);
  return values.data;
}

void require_disjoint(const array_view& written, std::string_view name, const array_view& read,
                      std::string_view name_of_read) {
  const auto first = [](const array_view& values) { return reinterpret_cast<std::uintptr_t>(values.data); };
  const auto end = [&](const array_view& values) { return first(values) + values.size * values.type.bits / 8; };
  require(first(written) >= end(read) || first(read) >= end(written), name, " and ", name_of_read, " of shapes ",
          shape_text(written), " and ", shape_text(read), " share memory: give an array of its own for ", name);
}

} // namespace hmoe::python
