// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace hmoe {

namespace detail {
/// Where the bytes of a view lie: `rows` runs of `bytes` bytes, `step` bytes apart.
struct byte_rows {
  std::uintptr_t begin;
  std::size_t rows, bytes, step;

  template <class T, class Space>
  explicit byte_rows(matrix_view<T, Space> m) noexcept
      : begin(reinterpret_cast<std::uintptr_t>(m.data())), rows(m.cols() == 0 ? 0 : m.rows()),
        bytes(m.cols() * sizeof(T)), step(m.stride() * sizeof(T)) {
    if (step == 0)
      rows = std::min<std::size_t>(rows, 1); // all rows are the first one
    if (step == bytes && rows > 1) {         // one run
      bytes *= rows;
      rows = 1;
    }
  }
  [[nodiscard]] std::uintptr_t end() const noexcept { return begin + (rows - 1) * step + bytes; }
  /// Whether a run shares a byte with [from, to).
  [[nodiscard]] bool meets(std::uintptr_t from, std::uintptr_t to) const noexcept {
    // The first run that ends behind `from`.
    const std::size_t r = from < begin + bytes ? 0 : (from - begin - bytes) / std::max<std::size_t>(step, 1) + 1;
    return r < rows && begin + r * step < to;
  }
};
} // namespace detail

/// Whether two views share a byte: outputs must not alias inputs. Blocks of columns of one matrix do not, though their
/// ranges of addresses do.
template <class A, class B, class Space>
[[nodiscard]] bool overlaps(matrix_view<A, Space> a, matrix_view<B, Space> b) noexcept {
  detail::byte_rows few(a), many(b);
  if (few.rows == 0 || many.rows == 0 || few.begin >= many.end() || many.begin >= few.end())
    return false;
  if (few.rows > many.rows)
    std::swap(few, many);
  for (std::size_t r = 0; r < few.rows; ++r)
    if (const std::uintptr_t from = few.begin + r * few.step; many.meets(from, from + few.bytes))
      return true;
  return false;
}

/// Whether rows of a view share a value: an output must not have such.
template <class T, class Space> [[nodiscard]] constexpr bool rows_overlap(matrix_view<T, Space> view) noexcept {
  return view.rows() > 1 && view.stride() < view.cols();
}

/// Throws unless `out` can be written while `in` is read.
template <class A, class B, class Space>
void check_output(matrix_view<A, Space> in, matrix_view<B, Space> out, std::string_view out_name) {
  require(in.data() != nullptr || in.size() == 0, "the input has ", in.rows(), " x ", in.cols(),
          " values at a null pointer");
  require(out.data() != nullptr || out.size() == 0, out_name, " has ", out.rows(), " x ", out.cols(),
          " values at a null pointer");
  require(!rows_overlap(out), "the rows of ", out_name, " overlap one another: they have ", out.cols(),
          " values and begin ", out.stride(), " apart");
  require(!overlaps(in, out), out_name, " overlaps the input; they must be different memory");
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
