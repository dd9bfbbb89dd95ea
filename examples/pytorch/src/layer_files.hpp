// SPDX-License-Identifier: MIT
// Layers on the tensors of the caller, as io/ragged_checkpoint.hpp reads and writes them.
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::python {

/// A tensor of a layer. `expert`: whose it is, or parameter_info::no_expert.
struct named_tensor {
  std::string name;
  std::size_t expert = parameter_info::no_expert;
  void* data = nullptr;
  std::size_t rows = 0, cols = 0;
};

/// The experts of such a layer: kinds and widths by id.
class named_experts {
public:
  named_experts(std::vector<std::string> kinds, std::vector<std::size_t> widths)
      : kinds_(std::move(kinds)), widths_(std::move(widths)) {
    require(kinds_.size() == widths_.size(), "a layer with ", kinds_.size(), " kinds of experts and ", widths_.size(),
            " widths");
  }
  [[nodiscard]] std::size_t size() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return widths_[e]; }
  [[nodiscard]] const std::vector<std::size_t>& widths() const noexcept { return widths_; }
  /// What the reader and the writer ask of a set of experts; a GLU or an MLP of width 0 is of the kind "vector".
  [[nodiscard]] friend std::vector<std::string> kinds_of(const named_experts& experts) {
    std::vector<std::string> kinds = experts.kinds_;
    for (std::size_t e = 0; e < kinds.size(); ++e)
      if (experts.width(e) == 0 && (kinds[e].starts_with("glu.") || kinds[e].starts_with("mlp.")))
        kinds[e] = "vector";
    return kinds;
  }

private:
  std::vector<std::string> kinds_;
  std::vector<std::size_t> widths_;
};

/// A layer of named tensors of T in memory of the caller.
template <class T> class named_layer {
public:
  using value_type = T;

  named_layer(std::size_t d_model, named_experts experts, std::vector<named_tensor> tensors)
      : d_model_(d_model), experts_(std::move(experts)), tensors_(std::move(tensors)) {}

  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] const named_experts& experts() const noexcept { return experts_; }
  [[nodiscard]] const std::vector<std::size_t>& widths() const noexcept { return experts_.widths(); }
  template <class Visitor> void visit_parameters(Visitor&& visit) const { detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    for (const named_tensor& tensor : tensors_)
      visit(parameter_info{.name = tensor.name, .expert = tensor.expert},
            matrix_view<T>(static_cast<T*>(tensor.data), tensor.rows, tensor.cols));
  }

private:
  std::size_t d_model_;
  named_experts experts_;
  std::vector<named_tensor> tensors_;
};

} // namespace hmoe::python
