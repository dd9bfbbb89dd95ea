// SPDX-License-Identifier: MIT
// Arrays of Python (DLPack, NumPy, torch) as the passes take them, with checks that name the argument.
#pragma once

#include <hmoe/core/error.hpp>

#include "passes.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe::python {

namespace nb = nanobind;
/// To read, and to write.
using array = nb::ndarray<nb::ro, nb::device::cpu>;
using output_array = nb::ndarray<nb::device::cpu>;

/// Either of them.
struct array_view {
  template <class... Arguments>
  array_view(const nb::ndarray<Arguments...>& values)
      : type(values.dtype()), data(const_cast<void*>(static_cast<const void*>(values.data()))) {
    for (std::size_t i = 0; i < values.ndim(); ++i) {
      shape.push_back(values.shape(i));
      strides.push_back(values.stride(i));
      size *= values.shape(i);
    }
  }
  nb::dlpack::dtype type;
  void* data;
  std::vector<std::size_t> shape;
  std::vector<std::int64_t> strides; ///< in values
  std::size_t size = 1;
};

/// float32, float64 or bfloat16; hmoe::error for others.
[[nodiscard]] scalar type_of(const array_view& values, std::string_view name);
[[nodiscard]] std::string_view name_of(scalar type) noexcept;

/// hmoe::error unless the array has that type.
void require_type(const array_view& values, scalar type, std::string_view name);
/// hmoe::error unless it has these dimensions.
void require_shape(const array_view& values, std::initializer_list<std::size_t> shape, std::string_view name);
/// hmoe::error unless its values lie one behind the other in row-major order.
void require_contiguous(const array_view& values, std::string_view name);
/// All three; the first value.
[[nodiscard]] void* values_of(const array_view& values, scalar type, std::initializer_list<std::size_t> shape,
                              std::string_view name);
/// The same for 64-bit integers.
[[nodiscard]] const std::int64_t* ids_of(const array_view& values, std::initializer_list<std::size_t> shape,
                                         std::string_view name);
/// A contiguous array of `size` values and any shape.
[[nodiscard]] void* values_of_any_shape(const array_view& values, scalar type, std::size_t size, std::string_view name);

/// hmoe::error where the two have bytes in common.
void require_disjoint(const array_view& written, std::string_view name, const array_view& read,
                      std::string_view name_of_read);

} // namespace hmoe::python
