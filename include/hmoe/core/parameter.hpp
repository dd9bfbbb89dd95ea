// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace hmoe {

/// What visit_parameters tells of each tensor.
struct parameter_info {
  std::string_view name;          ///< of the tensor within its expert or router, e.g. "gate"
  bool decay = true;              ///< whether weight decay applies (matrices yes, biases no)
  std::size_t expert = no_expert; ///< the expert it belongs to
  bool trained = true;            ///< whether it has a gradient; no for state that a rule of its own moves

  static constexpr std::size_t no_expert = static_cast<std::size_t>(-1);

  /// "experts.3.gate", or the name alone when the tensor belongs to no expert.
  [[nodiscard]] std::string full_name() const {
    return expert == no_expert ? std::string(name)
                               : std::string("experts.").append(std::to_string(expert)).append(".").append(name);
  }
};

/// A visitor that does nothing, for concepts to ask visit_parameters with: nvcc takes no lambda there.
template <class T> struct ignore_parameter {
  void operator()(const parameter_info&, matrix_view<T>) const noexcept {}
};

namespace detail {
/// Shows a visitor views to read through.
template <class Visitor> struct reading {
  Visitor& visit;

  template <class View> void operator()(const parameter_info& info, View view) const {
    using read_only = matrix_view<const typename View::value_type>;
    constexpr bool fits = std::invocable<Visitor&, const parameter_info&, read_only>;
    static_assert(fits,
                  "hmoe: visit_parameters of a const object: its visitor is called with (const parameter_info&, "
                  "matrix_view<const T>): let it take matrix_view<const T>, or visit an object that is not const");
    if constexpr (fits)
      visit(info, read_only(view));
  }
};
template <class Visitor> [[nodiscard]] reading<Visitor> read_with(Visitor& visit) noexcept { return {visit}; }

/// A visitor of any type, as virtual functions take it, and templates that shall be compiled once for all visitors:
/// refers to the one that it is made of. For const objects T is const.
template <class T> class visitor_reference {
public:
  template <class Visitor>
    requires(!std::same_as<std::remove_cvref_t<Visitor>, visitor_reference>)
  visitor_reference(Visitor&& visit) noexcept
      : visitor_(reinterpret_cast<const void*>(&visit)), // a function, too
        call_([](const void* visitor, const parameter_info& info, matrix_view<T> view) {
          (*reinterpret_cast<std::remove_reference_t<Visitor>*>(const_cast<void*>(visitor)))(info, view);
        }) {}

  void operator()(const parameter_info& info, matrix_view<T> view) const { call_(visitor_, info, view); }

private:
  const void* visitor_;
  void (*call_)(const void*, const parameter_info&, matrix_view<T>);
};

/// For banks on memory of the caller's that may only be read: they keep mutable views of it, as other banks do, and
/// hand them out behind require_writable.
template <class T> [[nodiscard]] matrix_view<T> as_mutable(matrix_view<const T> view) noexcept {
  return {const_cast<T*>(view.data()), view.rows(), view.cols(), view.stride()};
}
inline void require_writable(bool writable) {
  require(writable, "the weights of this bank are in memory that it may only read: copy the bank to change them");
}

/// f(parameter_info, matrix_view<const T>) for each tensor of a const object, by its visit_parameters for mutable ones,
/// which hands out views and changes nothing itself: an expert of a user needs no second overload, and nothing is
/// copied.
template <class Object, class Visitor> void visit_as_const(const Object& object, Visitor&& visit) {
  const_cast<Object&>(object).visit_parameters(read_with(visit));
}
/// The tensors of a part of an object, to read through where the part is const: by its own visit_parameters for const
/// ones where it has one, as banks do whose memory may only be read.
template <class Part, class Visitor> void visit_part(Part& part, Visitor&& visit) {
  if constexpr (!std::is_const_v<Part>) {
    part.visit_parameters(visit);
  } else {
    const auto read = read_with(visit);
    if constexpr (requires { part.visit_parameters(read); })
      part.visit_parameters(read);
    else
      visit_as_const(part, visit);
  }
}
} // namespace detail

/// A named tensor beside its gradient: what optimisers, clipping and checkpoints work on.
template <class T> struct parameter {
  std::string name;
  std::span<T> value; ///< [rows × cols], row-major
  std::span<T> gradient;
  bool decay = true;
  std::size_t rows = 0, cols = 0; ///< for optimisers that treat a matrix as one
  std::size_t expert = parameter_info::no_expert;
};

namespace detail {
/// Tensors beside their gradients, told one after the other: all tensors, then all gradients.
template <class T> class parameter_pairs {
public:
  explicit parameter_pairs(std::string_view prefix) noexcept : prefix_(prefix) {}

  void add_value(const parameter_info& info, matrix_view<T> value) {
    check_contiguous(info, value);
    pairs_.push_back({.name = std::string(prefix_) + info.full_name(),
                      .value = {value.data(), value.size()},
                      .gradient = {},
                      .decay = info.decay,
                      .rows = value.rows(),
                      .cols = value.cols(),
                      .expert = info.expert});
  }
  void add_gradient(const parameter_info& info, matrix_view<T> gradient) {
    check_contiguous(info, gradient);
    require(next_ < pairs_.size() && pairs_[next_].rows == gradient.rows() && pairs_[next_].cols == gradient.cols(),
            "the gradient of ", info.full_name(), " is ", gradient.rows(), " x ", gradient.cols(),
            ", which does not match the parameters: was it made by this layer?");
    pairs_[next_++].gradient = {gradient.data(), gradient.size()};
  }
  void append_to(std::vector<parameter<T>>& list) const {
    require(next_ == pairs_.size(), "the gradients have ", next_, " tensors, the parameters ", pairs_.size());
    list.insert(list.end(), pairs_.begin(), pairs_.end());
  }

private:
  static void check_contiguous(const parameter_info& info, matrix_view<T> view) {
    require(view.rows() <= 1 || view.stride() == view.cols(), "the rows of ", info.full_name(), ", ", view.cols(),
            " values each, lie ", view.stride(), " values apart: a parameter needs contiguous memory");
  }

  std::string_view prefix_;
  std::vector<parameter<T>> pairs_;
  std::size_t next_ = 0; ///< whose gradient is told next
};

struct zero_tensor {
  template <class View> void operator()(const parameter_info&, View view) const {
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (auto& value : view.row(r))
        value = {};
  }
};
} // namespace detail

/// Appends the tensors of `values`, paired with those of `gradients` (which visits tensors of the same shapes in the
/// same order), under `prefix`. Both only need `visit_parameters(f)` with f(parameter_info, matrix_view<T>), contiguous
/// views. Throws, and appends nothing, when they do not match.
template <class T, class Module, class Gradients>
void append_parameters(Module& values, Gradients& gradients, std::string_view prefix, std::vector<parameter<T>>& list) {
  detail::parameter_pairs<T> pairs(prefix);
  values.visit_parameters([&](const parameter_info& info, matrix_view<T> view) { pairs.add_value(info, view); });
  gradients.visit_parameters([&](const parameter_info& info, matrix_view<T> view) { pairs.add_gradient(info, view); });
  pairs.append_to(list);
}

/// Sets every tensor of a module to zero.
template <class Module> void set_zero(Module& values) { values.visit_parameters(detail::zero_tensor{}); }

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
