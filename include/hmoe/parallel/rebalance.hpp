// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/description.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>
#include <hmoe/parallel/placement.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Experts that move to other ranks while training goes on. Whether that pays: hmoe/parallel/rebalance_rule.hpp.
namespace hmoe::parallel {

namespace detail {

/// The rank that sends expert e to `receiver`, which lacks it by `from` and has it by `to`; those that have it take
/// turns.
[[nodiscard]] inline std::size_t sender_of(const expert_placement& from, const expert_placement& to, std::size_t e,
                                           std::size_t receiver) {
  std::size_t turn = 0;
  for (const replica& r : to.replicas(e)) {
    if (r.rank == receiver)
      break;
    turn += from.has(r.rank, e) ? 0 : 1;
  }
  return from.replicas(e)[turn % from.replicas(e).size()].rank;
}

/// Tensors of experts on their way: of each expert that moves, in the order of experts, tensors and states.
template <class T, class Optimizer> class moving_tensors {
public:
  /// Tensor i of the lists is tensor first + i of the optimiser.
  moving_tensors(const std::vector<parameter<T>>& before, const std::vector<parameter<T>>& after, Optimizer& optimizer,
                 std::size_t first)
      : before_(before), after_(after), optimizer_(optimizer), first_(first) {
    require(before.size() == after.size(), "rebalance: ", before.size(), " tensors would become ", after.size());
  }
  /// f(tensor) for each of expert e.
  template <class F> void for_tensors(std::size_t e, const F& f) const {
    for (std::size_t i = 0; i < before_.size(); ++i)
      if (before_[i].expert == e)
        f(i);
  }
  [[nodiscard]] std::size_t values_of(std::size_t e, const std::vector<parameter<T>>& list) const {
    std::size_t sum = 0;
    for_tensors(e, [&](std::size_t i) { sum += list[i].value.size() * (1 + states()); });
    return sum;
  }
  void append(std::size_t e, std::vector<T>& to) const {
    for_tensors(e, [&](std::size_t i) {
      to.insert(to.end(), before_[i].value.begin(), before_[i].value.end());
      optimizer_.visit_state(
          first_ + i, [&](std::string_view, std::span<T> state) { to.insert(to.end(), state.begin(), state.end()); });
    });
  }
  /// Takes what append gave on another rank; returns what is behind it.
  [[nodiscard]] std::span<const T> take(std::size_t e, std::span<const T> from) const {
    const auto next = [&](std::span<T> to) {
      std::copy_n(from.begin(), to.size(), to.begin());
      from = from.subspan(to.size());
    };
    for_tensors(e, [&](std::size_t i) {
      next(after_[i].value);
      optimizer_.visit_state(first_ + i, [&](std::string_view, std::span<T> state) { next(state); });
    });
    return from;
  }
  /// What stays on this rank, to where it is now.
  void keep(std::size_t e) const {
    for_tensors(e, [&](std::size_t i) {
      if (after_[i].value.data() != before_[i].value.data())
        std::ranges::copy(before_[i].value, after_[i].value.begin());
    });
  }
  /// Room for what comes in. An exception leaves the states of this rank as they were.
  void grow_states() const {
    std::size_t i = 0;
    if (const std::exception_ptr failed = exception_of([&] {
          for (; i < after_.size(); ++i)
            if (grows(i))
              optimizer_.resize_state(first_ + i, after_[i].value.size());
        })) {
      undo_growth(i + 1); // which may have grown in part
      std::rethrow_exception(failed);
    }
  }
  /// Where another rank has no room: the first `count` tensors as they were.
  void undo_growth(std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i)
      if (grows(i))
        optimizer_.resize_state(first_ + i, before_[i].value.size());
  }
  /// Gives up what has left. Allocates nothing: what is not here has no values.
  void shrink_states() const {
    for (std::size_t i = 0; i < after_.size(); ++i)
      if (!grows(i))
        optimizer_.resize_state(first_ + i, after_[i].value.size());
  }
  [[nodiscard]] std::size_t count() const noexcept { return after_.size(); }
  [[nodiscard]] const std::vector<parameter<T>>& before() const noexcept { return before_; }
  [[nodiscard]] const std::vector<parameter<T>>& after() const noexcept { return after_; }

private:
  [[nodiscard]] bool grows(std::size_t i) const noexcept { return after_[i].value.size() > before_[i].value.size(); }
  [[nodiscard]] std::size_t states() const {
    std::size_t count = 0;
    if (!before_.empty())
      optimizer_.visit_state(first_, [&](std::string_view, std::span<T>) { ++count; });
    return count;
  }

  const std::vector<parameter<T>>& before_;
  const std::vector<parameter<T>>& after_;
  Optimizer& optimizer_;
  std::size_t first_;
};

/// Sends the experts that ranks lack, and moves the others to where they are now. Collective.
template <communicator Communicator, class T, class Optimizer>
void move_experts(const Communicator& ranks, const expert_placement& from, const expert_placement& to,
                  const moving_tensors<T, Optimizer>& tensors) {
  const std::size_t self = ranks.rank();
  std::vector<std::size_t> sent, received;
  std::vector<T> out, in;
  communicators::agree(ranks, exception_of([&] {
                         sent.assign(ranks.size(), 0);
                         received.assign(ranks.size(), 0);
                         for (std::size_t p = 0; p < ranks.size(); ++p) {
                           const std::size_t begin = out.size();
                           for (std::size_t e = 0; e < to.experts(); ++e) {
                             if (to.has(p, e) && !from.has(p, e) && sender_of(from, to, e, p) == self)
                               tensors.append(e, out);
                             if (to.has(self, e) && !from.has(self, e) && sender_of(from, to, e, self) == p)
                               received[p] += tensors.values_of(e, tensors.after());
                           }
                           sent[p] = out.size() - begin;
                         }
                         std::size_t total = 0;
                         for (const std::size_t count : received)
                           total += count;
                         in.resize(total);
                       }),
                       "rebalance");
  ranks.template all_to_all<T>(std::span<const T>(out), sent, std::span(in), received);
  // Only states that grow need memory. Those that shrink have values to lose, so they wait until all ranks have it.
  const std::exception_ptr own = exception_of([&] { tensors.grow_states(); });
  if (const std::exception_ptr all = exception_of([&] { communicators::agree(ranks, own, "rebalance"); })) {
    if (own == nullptr)
      tensors.undo_growth(tensors.count());
    std::rethrow_exception(all);
  }
  tensors.shrink_states();
  std::span<const T> rest(in);
  for (std::size_t p = 0; p < ranks.size(); ++p)
    for (std::size_t e = 0; e < to.experts(); ++e)
      if (to.has(self, e) && !from.has(self, e) && sender_of(from, to, e, self) == p)
        rest = tensors.take(e, rest);
  for (std::size_t e = 0; e < to.experts(); ++e)
    if (to.has(self, e) && from.has(self, e))
      tensors.keep(e);
}

/// The tensors of experts, in the order in which a layer lists them, before its router's.
template <class Experts> [[nodiscard]] auto tensors_of(Experts& experts) {
  using T = typename Experts::value_type;
  std::vector<parameter<T>> list;
  append_parameters<T>(experts, experts, "", list);
  return list;
}

} // namespace detail

/// Collective, between steps of training: gives the layer another placement, and moves the weights of its experts and
/// the optimiser's state, bit for bit, to the ranks that have them now; of several ranks that have an expert each sends
/// to some. For layers with the memory of all experts on every rank: gradients and lists of parameters stay valid.
/// `optimizer` has visit_state and resize_state, as training::adamw and sgd; the layer's tensors are its tensors from
/// `first_tensor` on, in the order of moe_layer::append_parameters. With a dispatch strategy of hmoe/parallel. The
/// tensors that travel are copied once on each side. hmoe::error on every rank, and nothing has moved, where `to` is
/// for another number of ranks or experts, or memory ends.
template <class Layer, class Optimizer>
void rebalance(Layer& layer, Optimizer& optimizer, const expert_placement& to, std::size_t first_tensor = 0) {
  const auto& before = layer.dispatch_strategy();
  const auto ranks = before.ranks();
  auto after = before.with_placement(to);
  std::vector<parameter<typename Layer::value_type>> list;
  communicators::agree(ranks, exception_of([&] {
                         require(to.experts() == layer.size(), "rebalance: a placement of ", to.experts(),
                                 " experts for a layer of ", layer.size());
                         list = detail::tensors_of(layer.experts());
                       }),
                       "rebalance");
  detail::move_experts(ranks, before.placed(), to, detail::moving_tensors{list, list, optimizer, first_tensor});
  layer.set_dispatch_strategy(std::move(after));
}

/// The same for layers that have the memory of their rank's experts only: make_experts(to) returns the experts as this
/// rank has them by the new placement, with any weights. Make gradients and the list of parameters anew.
/// hmoe::error on every rank, and nothing has moved, also where these experts are not those of the layer.
template <class Layer, class Optimizer, class MakeExperts>
  requires requires(const MakeExperts& make, const expert_placement& to) {
    { make(to) } -> std::convertible_to<typename Layer::experts_type>;
  }
void rebalance(Layer& layer, Optimizer& optimizer, const expert_placement& to, const MakeExperts& make_experts,
               std::size_t first_tensor = 0) {
  const auto& before = layer.dispatch_strategy();
  const auto ranks = before.ranks();
  auto after = before.with_placement(to);
  std::optional<typename Layer::experts_type> next;
  std::vector<parameter<typename Layer::value_type>> old_list, new_list;
  communicators::agree(
      ranks, exception_of([&] {
        require(to.experts() == layer.size(), "rebalance: a placement of ", to.experts(), " experts for a layer of ",
                layer.size());
        next.emplace(make_experts(to));
        const std::string had = descriptions::describe_experts(layer.experts());
        const std::string made = descriptions::describe_experts(*next);
        require(made == had, "rebalance: the layer has ", had, ", but ", made, " were made");
        for (std::size_t e = 0; e < to.experts(); ++e)
          require(next->width(e) == layer.widths()[e] || (next->width(e) == 0 && !to.has(ranks.rank(), e)),
                  "rebalance: expert ", e, " was made with width ", next->width(e), ", it has ", layer.widths()[e]);
        old_list = detail::tensors_of(layer.experts());
        new_list = detail::tensors_of(*next);
      }),
      "rebalance");
  detail::move_experts(ranks, before.placed(), to, detail::moving_tensors{old_list, new_list, optimizer, first_tensor});
  layer.experts() = std::move(*next);
  layer.set_dispatch_strategy(std::move(after));
}

} // namespace hmoe::parallel

#include <hmoe/core/macros_on.hpp>
