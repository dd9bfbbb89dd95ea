// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe {

/// What visit_parameters tells of each tensor.
struct parameter_info {
  std::string_view name;          ///< of the tensor within its expert or router, e.g. "gate"
  bool decay = true;              ///< whether weight decay applies (matrices yes, biases no)
  std::size_t expert = no_expert; ///< the expert it belongs to

  static constexpr std::size_t no_expert = static_cast<std::size_t>(-1);

  /// "experts.3.gate", or the name alone when the tensor belongs to no expert.
  [[nodiscard]] std::string full_name() const {
    return expert == no_expert ? std::string(name) : "experts." + std::to_string(expert) + "." + std::string(name);
  }
};

/// A named tensor beside its gradient: what optimisers, clipping and checkpoints work on.
template <class T> struct parameter {
  std::string name;
  std::span<T> value;
  std::span<T> gradient;
  bool decay = true;
};

/// Appends the tensors of `values`, paired with those of `gradients` (an object of the same type and shape), under
/// `prefix`. Both only need `visit_parameters(f)` with f(parameter_info, matrix_view<T>), contiguous views.
template <class T, class Module>
void append_parameters(Module& values, Module& gradients, std::string_view prefix, std::vector<parameter<T>>& list) {
  const std::size_t first = list.size();
  values.visit_parameters([&](const parameter_info& info, matrix_view<T> value) {
    list.push_back({std::string(prefix) + info.full_name(), {value.data(), value.size()}, {}, info.decay});
  });
  std::size_t next = first;
  gradients.visit_parameters([&](const parameter_info& info, matrix_view<T> gradient) {
    require(next < list.size() && list[next].value.size() == gradient.size(), "the gradient of ", info.full_name(), " has ",
            gradient.size(), " values, which do not match the parameters: was it made by this layer?");
    list[next++].gradient = {gradient.data(), gradient.size()};
  });
  require(next == list.size(), "the gradients have ", next - first, " tensors, the parameters ", list.size() - first);
}

/// Sets every tensor of a module to zero.
template <class Module> void set_zero(Module& module) {
  module.visit_parameters([](const parameter_info&, auto view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (auto& value : view.row(r))
        value = {};
  });
}

} // namespace hmoe
