// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>
#include <hmoe/testing/reversed_threads.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace hmoe::testing {

/// What an optimiser promises.
struct optimizer_options {
  double learning_rate = 1e-2;
  std::size_t steps = 200;        ///< after which it must have halved a quadratic loss of parameters of size 1
  bool element_by_element = true; ///< off: a value's update depends on the others of its tensor
  bool tensor_by_tensor = true;   ///< off: a tensor's update depends on the other tensors
};

namespace detail {

/// Tensors with their gradients between margins, as an optimiser takes them.
template <class T> class training_tensors {
public:
  explicit training_tensors(const std::vector<std::size_t>& sizes, bool decay = true) {
    values_.reserve(sizes.size());
    gradients_.reserve(sizes.size());
    std::uint64_t position = 0;
    for (const std::size_t size : sizes) {
      values_.emplace_back(size);
      gradients_.emplace_back(size);
      for (std::size_t i = 0; i < size; ++i, ++position) { // a function of the place in the whole list
        values_.back().view()[i] = static_cast<T>(normal(seed{51}, 0, position));
        gradients_.back().view()[i] = static_cast<T>(normal(seed{51}, 1, position));
      }
      parameter<T> tensor;
      tensor.name = "tensor " + std::to_string(list_.size());
      tensor.value = {values_.back().view().data(), size};
      tensor.gradient = {gradients_.back().view().data(), size};
      tensor.decay = decay;
      tensor.rows = 1;
      tensor.cols = size;
      list_.push_back(tensor);
    }
  }
  training_tensors(const training_tensors&) = delete;
  training_tensors& operator=(const training_tensors&) = delete;
  ~training_tensors() = default;

  [[nodiscard]] const std::vector<parameter<T>>& list() const noexcept { return list_; }
  [[nodiscard]] std::vector<T> values() const { return joined(values_); }
  [[nodiscard]] std::vector<T> gradients() const { return joined(gradients_); }
  void set_gradients(T value) {
    for (auto& g : gradients_)
      std::ranges::fill(g.view(), value);
  }
  /// Gradients of the next step: values of another stream.
  void draw_gradients(std::uint64_t stream) {
    std::uint64_t position = 0;
    for (auto& g : gradients_)
      for (T& value : g.view())
        value = static_cast<T>(normal(seed{52}, stream, position++));
  }
  /// ∂/∂θ of loss().
  void set_quadratic_gradients() {
    for (std::size_t i = 0; i < values_.size(); ++i)
      std::ranges::copy(values_[i].view(), gradients_[i].view().begin());
  }
  /// ½ Σ θ²
  [[nodiscard]] double loss() const {
    const std::vector<T> all = values();
    return inner_product(all, all) / 2;
  }
  [[nodiscard]] bool margins_intact() const {
    const auto intact = [](const auto& array) { return array.margins_intact(); };
    return std::ranges::all_of(values_, intact) && std::ranges::all_of(gradients_, intact);
  }

private:
  static std::vector<T> joined(const std::vector<guarded_array<T>>& arrays) {
    std::vector<T> all;
    for (const auto& array : arrays)
      all.insert(all.end(), array.view().begin(), array.view().end());
    return all;
  }
  std::vector<guarded_array<T>> values_, gradients_;
  std::vector<parameter<T>> list_;
};

} // namespace detail

/// Checks an optimiser, given as make(list), which makes one for a std::vector<parameter<T>>:
///   check_optimizer<float>([](const auto& list) { return training::sgd<float>({.momentum = 0.9}, list); })
/// It halves a quadratic loss; changes values and nothing else; a learning rate of 0 changes nothing, nor does a
/// gradient of 0 in the first step of tensors without decay; tensors are updated as if they were alone, and in parts as
/// they are whole; the same steps give the same bits, in copies and on any number of threads; empty lists and tensors
/// are legal; lists of other sizes and a learning rate that is not finite are an hmoe::error, and nothing is written.
template <float_or_double T, std::invocable<const std::vector<parameter<T>>&> Make>
[[nodiscard]] report check_optimizer(const Make& make, const optimizer_options& options = {}) {
  using tensors = detail::training_tensors<T>;
  report found;
  const double rate = options.learning_rate;
  const auto after_steps = [&](const std::vector<std::size_t>& sizes, std::size_t keep) {
    tensors list(sizes);
    auto optimizer = make(list.list());
    for (std::uint64_t step = 0; step < 3; ++step) {
      list.draw_gradients(step);
      optimizer.step(list.list(), rate);
    }
    std::vector<T> values = list.values();
    values.resize(std::min(keep, values.size()));
    return values;
  };

  found.expect_no_throw("works without an exception", [&] {
    tensors list({12, 1, 30});
    auto optimizer = make(list.list());
    const double before = list.loss();
    for (std::size_t step = 0; step < options.steps; ++step) {
      list.set_quadratic_gradients();
      const std::vector<T> gradients = list.gradients();
      optimizer.step(list.list(), rate);
      found.expect(same_bits(list.gradients(), gradients), "leaves gradients alone", "they changed in step ", step);
      if (!found.expect(all_finite(list.values()), "values stay finite", "not after step ", step))
        return;
    }
    found.expect(list.loss() <= before / 2, "makes a quadratic loss smaller", "it went from ", before, " to ",
                 list.loss(), " in ", options.steps, " steps");
    found.expect(list.margins_intact(), "writes only values", "memory beside a tensor changed");
  });
  found.expect_no_throw("works without an exception", [&] {
    tensors still({8, 5}), plain({8, 5}, /*decay=*/false);
    const std::vector<T> start = still.values();
    auto first = make(still.list());
    first.step(still.list(), 0);
    found.expect(same_bits(still.values(), start), "a learning rate of 0 changes no value",
                 largest_difference(still.values(), start));
    auto second = make(plain.list());
    plain.set_gradients(T(0));
    second.step(plain.list(), rate);
    found.expect(same_bits(plain.values(), start), "without gradient and decay no value changes",
                 largest_difference(plain.values(), start));
  });
  found.expect_no_throw("works without an exception", [&] {
    found.expect(!options.tensor_by_tensor || same_bits(after_steps({12, 7}, 12), after_steps({12}, 12)),
                 "a tensor is updated as if it were alone", "beside another one it gets other values");
    found.expect(!options.element_by_element || same_bits(after_steps({12}, 12), after_steps({5, 7}, 12)),
                 "a tensor in two parts is updated like the whole", "12 values get others than 5 and 7");
    found.expect(repeatable([&] { return after_steps({12, 7}, 19); }), "gives the same bits every time",
                 "the same steps again, or on another thread, gave others");
    found.expect(after_steps({}, 0).empty() && all_finite(after_steps({0, 3}, 3)), "empty lists and tensors are legal",
                 "a value is not finite");
  });
  if constexpr (std::copy_constructible<std::invoke_result_t<Make, const std::vector<parameter<T>>&>>)
    found.expect_no_throw("copies are independent", [&] {
      tensors list({9});
      auto optimizer = make(list.list());
      list.draw_gradients(0);
      optimizer.step(list.list(), rate);
      auto copy = optimizer;
      tensors other({9});
      other.draw_gradients(7);
      copy.step(other.list(), rate);
      for (std::uint64_t step = 1; step < 3; ++step) {
        list.draw_gradients(step);
        optimizer.step(list.list(), rate);
      }
      found.expect(same_bits(list.values(), after_steps({9}, 9)), "copies are independent",
                   "a step of a copy changed what the original does");
    });
  found.expect_no_throw("threads change no bit", [&] {
    const std::vector<std::size_t> sizes{100'000, 3};
    const auto on_threads = [&](std::size_t threads) {
      tensors list(sizes);
      auto optimizer = make(list.list());
      const context ctx{backends::reference{}, reversed_threads(threads)};
      if constexpr (requires { optimizer.step(ctx, list.list(), rate); })
        for (std::uint64_t step = 0; step < 2; ++step)
          optimizer.step(ctx, list.list(), rate);
      found.expect(list.margins_intact(), "writes only values", "memory beside a tensor changed");
      return list.values();
    };
    found.expect(same_bits(on_threads(1), on_threads(3)), "threads change no bit",
                 "3 threads give another value than 1");
  });

  const auto refuses = [&](const char* what, const std::vector<std::size_t>& sizes, double learning_rate,
                           bool short_gradient = false) {
    tensors list({6, 4}), given(sizes);
    auto optimizer = make(list.list());
    const std::vector<T> start = given.values();
    std::vector<parameter<T>> tensors_given = given.list();
    if (short_gradient)
      tensors_given.back().gradient = tensors_given.back().gradient.first(1);
    bool refused = false;
    try {
      optimizer.step(tensors_given, learning_rate);
    } catch (const error&) {
      refused = true;
    } catch (const std::exception&) { // must be the library's error
    }
    found.expect(refused, "refuses what it was not made for", what, " is no hmoe::error");
    found.expect(same_bits(given.values(), start), "writes nothing when it refuses", "values changed, though ", what,
                 " was refused");
  };
  refuses("a list with a tensor less", {6}, rate);
  refuses("a list with a tensor more", {6, 4, 2}, rate);
  refuses("a tensor of another size", {6, 3}, rate);
  refuses("a gradient of another size", {6, 4}, rate, true);
  refuses("a learning rate of NaN", {6, 4}, std::numeric_limits<double>::quiet_NaN());
  refuses("an infinite learning rate", {6, 4}, std::numeric_limits<double>::infinity());
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
