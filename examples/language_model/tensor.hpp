// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/parameter.hpp>
#include <hmoe/interop/eigen.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// Row-major like the views of hmoe, so that one matrix passes between Eigen and the library without a copy.
template <class T> using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Blocks of rows of a matrix: the unit in which tokens are handed to layers.
template <class T> using rows_ref = Eigen::Ref<matrix<T>>;
template <class T> using const_rows_ref = Eigen::Ref<const matrix<T>>;

/// Eigen counts in signed numbers, everything else here in std::size_t; this is the only crossing.
constexpr Eigen::Index to_index(std::size_t n) { return static_cast<Eigen::Index>(n); }

constexpr std::size_t to_size(Eigen::Index n) { return static_cast<std::size_t>(n); }

/// A trained tensor and the sum of its gradients.
template <class T> struct weight {
  matrix<T> value;
  matrix<T> gradient;

  weight(std::size_t rows, std::size_t cols)
      : value(matrix<T>::Zero(to_index(rows), to_index(cols))),
        gradient(matrix<T>::Zero(to_index(rows), to_index(cols))) {}

  void append_parameter(std::vector<hmoe::parameter<T>>& list, std::string name, bool decay = true) {
    list.push_back({std::move(name), std::span<T>(value.data(), to_size(value.size())),
                    std::span<T>(gradient.data(), to_size(gradient.size())), decay});
  }
};

} // namespace language_model
