// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<Eigen/Core>)
#error                                                                                                                 \
    "hmoe/interop/eigen.hpp needs Eigen: install it (libeigen3-dev) and link hmoe::eigen, or compile with -I/usr/include/eigen3"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/interop/intrinsics.hpp>

#include <Eigen/Core>

#include <concepts>
#include <type_traits>

namespace hmoe::interop {

template <class T>
using row_major = Eigen::Matrix<std::remove_cv_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using eigen_map =
    Eigen::Map<std::conditional_t<std::is_const_v<T>, const row_major<T>, row_major<T>>, 0, Eigen::OuterStride<>>;

/// A view as an Eigen expression; reads and writes go to the viewed memory.
template <class T> [[nodiscard]] eigen_map<T> as_eigen(matrix_view<T> view) noexcept {
  return {view.data(), static_cast<Eigen::Index>(view.rows()), static_cast<Eigen::Index>(view.cols()),
          Eigen::OuterStride<>(static_cast<Eigen::Index>(view.stride()))};
}

/// Eigen objects that lie in memory: Matrix, Array, Map, Ref and blocks of these.
template <class M>
concept eigen_in_memory = std::derived_from<M, Eigen::DenseBase<M>> && requires(M& m) {
  m.data();
  m.outerStride();
  m.innerStride();
};
} // namespace hmoe::interop

/// Lets row-major Eigen objects be passed wherever a matrix_view is expected.
template <hmoe::interop::eigen_in_memory M> struct hmoe::matrix_view_traits<M> {
  static constexpr bool refers = !std::derived_from<M, Eigen::PlainObjectBase<M>>; ///< Map, Ref, Block
  template <class Object> static auto view(Object& object) {
    static_assert(M::IsRowMajor, "hmoe: a matrix has one token per row with contiguous values: declare the Eigen "
                                 "matrix with Eigen::RowMajor");
    require(object.innerStride() == 1 || object.cols() <= 1, "the values of an Eigen row lie ", object.innerStride(),
            " apart: a matrix_view needs them contiguous");
    using value = std::remove_pointer_t<decltype(object.data())>;
    return hmoe::matrix_view<value>(object.data(), static_cast<std::size_t>(object.rows()),
                                    static_cast<std::size_t>(object.cols()),
                                    static_cast<std::size_t>(object.outerStride()));
  }
};

#include <hmoe/core/macros_on.hpp>
