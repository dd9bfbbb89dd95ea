// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/testing/optimizer_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace {
enum class fault {
  none,
  ascends,
  eats_gradients,
  past_the_end,
  moves_without_a_rate,
  decays_all,
  by_tensor,
  by_list,
  drifts,
  shares_state,
  by_thread,
  unchecked,
  checks_late,
  overflows
};
using list_type = std::vector<hmoe::parameter<double>>;

/// SGD with momentum ½, with one thing wrong.
class sgd {
public:
  sgd(fault f, const list_type& list) : has(f) {
    for (const auto& tensor : list)
      state_->emplace_back(tensor.value.size());
  }
  sgd(const sgd& other)
      : has(other.has), state_(has == fault::shares_state ? other.state_ : std::make_shared<state>(*other.state_)) {}
  sgd& operator=(const sgd&) = delete;
  ~sgd() = default;

  void step(const list_type& list, double rate) { update(list, rate, 1); }
  template <class Context> void step(const Context& ctx, const list_type& list, double rate) {
    update(list, rate, ctx.executor().concurrency());
  }

private:
  using state = std::vector<std::vector<double>>;

  void update(const list_type& list, double rate, std::size_t threads) {
    if (has != fault::unchecked && has != fault::checks_late)
      check(list, rate);
    for (std::size_t i = 0; i < std::min(list.size(), state_->size()); ++i) {
      const std::size_t size = std::min({list[i].value.size(), list[i].gradient.size(), (*state_)[i].size()});
      double factor = has == fault::by_list ? 1 / static_cast<double>(list.size()) : 1;
      if (has == fault::by_tensor)
        factor = 1 / static_cast<double>(size);
      for (std::size_t j = 0; j < size; ++j) {
        double& velocity = (*state_)[i][j];
        velocity = velocity / 2 + list[i].gradient[j] * factor;
        double& value = list[i].value[j];
        value -= rate * velocity * (has == fault::ascends ? -1 : 1);
        if (has == fault::moves_without_a_rate)
          value -= 1e-3 * velocity;
        if (has == fault::decays_all)
          value *= 1 - 1e-3 * rate;
        if (has == fault::drifts)
          value += 1e-9 * ++calls;
        if (has == fault::by_thread)
          value += 1e-9 * static_cast<double>(threads - 1);
        if (has == fault::overflows)
          value = std::numeric_limits<double>::infinity();
      }
      if (has == fault::eats_gradients && size != 0)
        list[i].gradient[0] = 0;
      if (has == fault::past_the_end)
        list[i].value.data()[list[i].value.size()] = 0;
    }
    if (has == fault::checks_late)
      check(list, rate);
  }
  void check(const list_type& list, double rate) const {
    hmoe::require(std::isfinite(rate), "a learning rate of ", rate);
    hmoe::require(list.size() == state_->size(), list.size(), " tensors");
    for (std::size_t i = 0; i < list.size(); ++i)
      hmoe::require(list[i].value.size() == (*state_)[i].size() && list[i].gradient.size() == (*state_)[i].size(),
                    list[i].name, " has another size");
  }

  fault has;
  static inline std::atomic<int> calls = 0;
  std::shared_ptr<state> state_ = std::make_shared<state>();
};
std::string laws(fault has, const hmoe::testing::optimizer_options& options = {}) {
  return hmoe::testing::check_optimizer<double>([has](const list_type& list) { return sgd(has, list); }, options)
      .text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound optimiser keeps the laws") { CHECK(laws(fault::none) == ""); }

TEST_CASE("each fault of an optimiser is named") {
  CHECK(names(laws(fault::ascends), "makes a quadratic loss smaller: it went from "));
  CHECK(names(laws(fault::none, {.steps = 3}), "makes a quadratic loss smaller: it went from "));
  CHECK(names(laws(fault::eats_gradients), "leaves gradients alone: they changed in step 0"));
  CHECK(names(laws(fault::past_the_end), "writes only values: memory beside a tensor changed"));
  CHECK(names(laws(fault::moves_without_a_rate), "a learning rate of 0 changes no value: at ["));
  CHECK(names(laws(fault::decays_all), "without gradient and decay no value changes: at ["));
  CHECK(names(laws(fault::by_tensor, {.steps = 2000}), "a tensor in two parts is updated like the whole"));
  CHECK(laws(fault::by_tensor, {.steps = 2000, .element_by_element = false}) == "");
  CHECK(names(laws(fault::by_list), "a tensor is updated as if it were alone"));
  CHECK(laws(fault::by_list, {.element_by_element = false, .tensor_by_tensor = false}) == "");
  CHECK(names(laws(fault::drifts), "gives the same bits every time"));
  CHECK(names(laws(fault::shares_state), "copies are independent: a step of a copy"));
  CHECK(names(laws(fault::by_thread), "threads change no bit: 3 threads"));
  CHECK(names(laws(fault::unchecked), "refuses what it was not made for: a list with a tensor less is no hmoe::error"));
  CHECK(names(laws(fault::checks_late), "writes nothing when it refuses: values changed"));
  CHECK(names(laws(fault::overflows), "values stay finite: not after step 0"));
}
