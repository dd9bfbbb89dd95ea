// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>

#include <cstring>
#include <vector>

namespace support {

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T> bool same_bits(const hmoe::matrix<T>& a, const hmoe::matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

} // namespace support
