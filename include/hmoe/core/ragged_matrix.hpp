// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <limits>
#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe {

/// Matrices of different shapes one behind the other in one storage: the weights of experts of unequal width,
/// without padding. Matrix i is row-major and contiguous at values[offset(i)].
template <class T> class ragged_matrix {
public:
  using shape = std::pair<std::size_t, std::size_t>; ///< rows, cols

  ragged_matrix() : offsets_{0} {}
  /// Zeros in the given shapes, in memory of the given resource.
  explicit ragged_matrix(std::vector<shape> shapes,
                         std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : shapes_(std::move(shapes)), offsets_{0}, values_(memory) {
    offsets_.reserve(shapes_.size() + 1);
    for (const auto& [rows, cols] : shapes_) {
      require(cols == 0 || rows <= (std::numeric_limits<std::size_t>::max() - offsets_.back()) / cols, "a matrix of ",
              rows, " by ", cols, " values behind ", offsets_.back(), " others does not fit into memory");
      offsets_.push_back(offsets_.back() + rows * cols);
    }
    values_.resize_for_overwrite(offsets_.back());
    values_.fill(T{});
  }

  [[nodiscard]] std::size_t size() const noexcept { return shapes_.size(); }
  [[nodiscard]] std::size_t offset(std::size_t i) const noexcept { return offsets_[i]; }
  [[nodiscard]] matrix_view<T> operator[](std::size_t i) noexcept {
    HMOE_ASSERT_INDEX("matrix", i, size());
    return {values_.data() + offsets_[i], shapes_[i].first, shapes_[i].second};
  }
  [[nodiscard]] matrix_view<const T> operator[](std::size_t i) const noexcept {
    HMOE_ASSERT_INDEX("matrix", i, size());
    return {values_.data() + offsets_[i], shapes_[i].first, shapes_[i].second};
  }
  /// All values of all matrices.
  [[nodiscard]] vector_view<T> values() noexcept { return values_.view(); }
  [[nodiscard]] vector_view<const T> values() const noexcept { return values_.view(); }

private:
  std::vector<shape> shapes_;
  std::vector<std::size_t> offsets_;
  buffer<T> values_;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
