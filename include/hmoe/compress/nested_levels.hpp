// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/nested.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/limited.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// Levels by class of token: token t runs at level of_token[t], in all of its experts. [T] entries, padding included.
struct level_by_token {
  vector_view<const std::uint8_t> of_token;

  [[nodiscard]] std::size_t operator()(std::size_t token, std::size_t, double) const { return of_token[token]; }
};
/// Levels by load: expert e runs at as many levels above 0 as there are limits below its relative load,
/// Σ_i [r_e > limits[i]], r_e = n_e / mean n over the routed experts, where n_e counts the batch's entries of e before
/// drops. What is wide or narrow is in the widths of the levels. A token's output then depends on its batch.
struct level_by_load {
  vector_view<const double> limits; ///< one less than there are levels, ascending

  [[nodiscard]] std::size_t operator()(std::size_t, std::size_t, double relative_load) const {
    std::size_t level = 0;
    while (level < limits.size() && relative_load > limits[level])
      ++level;
    return level;
  }
};
/// What chooses a level: level = choice(token, expert, relative load of the expert), for each entry of the assignment.
template <class C>
concept level_choice = requires(const C& choice) {
  { choice(std::size_t{}, std::size_t{}, double{}) } -> std::convertible_to<std::size_t>;
};

namespace detail {
template <class Capacity, class Order, dispatch::spare_rows Spare, class After>
std::bool_constant<!std::same_as<Capacity, capacity::no_capacity>>
has_capacity(const dispatch::limited<Capacity, Order, Spare, After>*);
std::false_type has_capacity(const void*);

template <class Bank>
inline constexpr bool has_prefixes =
    requires(const Bank& bank, vector_view<const std::size_t> some) { bank.prefixes(some, some); };

/// Expert e of a bank comes once for each level, at the width that is given: sets[l] is what level l takes from.
template <class Set, class... Banks>
[[nodiscard]] expert_set<Banks...> levels_of(const std::vector<Set*>& sets, const expert_set<Banks...>& like,
                                             const std::vector<std::vector<std::size_t>>& widths) {
  const std::size_t levels = sets.size();
  expert_ids numbers;
  for (const auto& ids : like.ids().of_bank) {
    auto& own = numbers.of_bank.emplace_back();
    for (const std::size_t e : ids)
      for (std::size_t l = 0; l < levels; ++l)
        own.push_back(e * levels + l);
  }
  const auto bank_of = [&]<std::size_t B>(std::integral_constant<std::size_t, B>) {
    using Bank = std::remove_cvref_t<decltype(like.template bank<B>())>;
    const std::vector<std::size_t>& ids = like.ids().of_bank[B];
    if constexpr (neuron_bank<Bank>) {
      using value =
          std::conditional_t<std::is_const_v<Set>, const typename Bank::value_type, typename Bank::value_type>;
      constexpr std::size_t lanes = decltype(detail::lanes_of(like.template bank<B>().weights()))::value;
      std::vector<experts::ffn_tensors<value, lanes>> views;
      for (std::size_t i = 0; i < ids.size(); ++i)
        for (std::size_t l = 0; l < levels; ++l)
          views.push_back(
              detail::first_neurons<value, lanes>(sets[l]->template bank<B>(), i, ids[i], widths[l][ids[i]]));
      return detail::with_weights(like.template bank<B>(),
                                  experts::ffn_weights<typename Bank::value_type, lanes>(std::move(views)));
    } else {
      std::vector<std::size_t> places, of_levels;
      for (std::size_t i = 0; i < ids.size(); ++i)
        for (std::size_t l = 0; l < levels; ++l) {
          places.push_back(i);
          of_levels.push_back(widths[l][ids[i]]);
        }
      return like.template bank<B>().prefixes({places.data(), places.size()}, {of_levels.data(), of_levels.size()});
    }
  };
  return [&]<std::size_t... B>(std::index_sequence<B...>) {
    return expert_set<Banks...>(std::move(numbers), bank_of(std::integral_constant<std::size_t, B>{})...);
  }(std::index_sequence_for<Banks...>{});
}

template <class... Banks> [[nodiscard]] consteval bool can_have_levels(const expert_set<Banks...>*) {
  return ((neuron_bank<Banks> || has_prefixes<Banks>) && ...);
}

/// Gives each entry of an assignment to expert e the id e · levels + level, and takes that back.
template <class Choice> struct level_ids {
  const Choice& choice;
  std::size_t levels, experts, routed;

  template <execution_context Context, class T> void change(const Context& ctx, tape<T>& tape) const {
    auto& assigned = tape.assignment();
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<std::size_t> rows(experts, &ctx.workspace());
    rows.fill(0);
    std::size_t total = 0;
    for (const index_t e : std::as_const(assigned).experts()) {
      ++rows[e];
      total += e < routed ? 1 : 0;
    }
    const double mean = static_cast<double>(total) / static_cast<double>(routed);
    for (std::size_t t = 0; t < assigned.tokens(); ++t)
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        index_t& e = assigned.experts()[a];
        const double load = mean == 0 ? 0.0 : static_cast<double>(rows[e]) / mean;
        const std::size_t level = choice(t, std::size_t{e}, load);
        require(level < levels, "token ", t, " shall run at level ", level, " in expert ", e, ", there are ", levels);
        e = static_cast<index_t>(e * levels + level);
      }
  }
  template <class T> void restore(tape<T>& tape) const noexcept {
    for (index_t& e : tape.assignment().experts())
      e = static_cast<index_t>(e / levels);
  }
};
/// For the backward pass: the levels that the tape's plan has.
struct planned_ids {
  std::size_t levels, experts;

  template <class T> void change_again(tape<T>& tape) const {
    const plan& by_expert = tape.plan();
    require(by_expert.expert_count() == experts * levels && by_expert.slots().size() == tape.assignment().size(),
            "the tape's plan is of ", by_expert.expert_count(), " experts, needed is one of ", experts, " at ", levels,
            " levels: give a tape that a forward pass of this nested_levels has filled");
    for (index_t& e : tape.assignment().experts())
      e = static_cast<index_t>(e * levels); // what dropped entries keep
    for (std::size_t id = 0; id < by_expert.expert_count(); ++id)
      for (std::size_t slot = by_expert.offsets()[id]; slot < by_expert.offsets()[id + 1]; ++slot)
        if (by_expert.entries()[slot] != no_index)
          tape.assignment().experts()[by_expert.entries()[slot]] = static_cast<index_t>(id);
  }
  template <class T> void restore(tape<T>& tape) const noexcept {
    for (index_t& e : tape.assignment().experts())
      e = static_cast<index_t>(e / levels);
  }
};
} // namespace detail

/// A layer at several sets of nested widths at once, its levels: within one pass, each entry of the assignment (a token
/// in one of its experts) runs at the level that is chosen for it, by the token's class (prompt and generated tokens,
/// say) or by the load of the expert. Like `nested` it has no weights of its own, packed or not; its experts are views,
/// one for each expert and level.
///   compress::nested_levels both{ordered.layer, {whole, half}};
///   both.forward(ctx, x, y, compress::level_by_token{classes});                    // [T] 0 or 1
///   both.forward(ctx, x, y, compress::level_by_load{limits}); // half where a load is above limits[0]
/// The output of a token has the bits of the layer that is cut to the widths of its levels (nested{layer,
/// widths}.cut()). Routing comes first and does not see levels; traces, assignments and losses have the layer's ids and
/// full widths. Strategies with a capacity, and dispatch::dense, are refused. All banks must have neurons or be packed.
template <class Layer> class nested_levels {
public:
  using value_type = typename Layer::value_type;
  using experts_type = typename Layer::experts_type;
  using gradients_type = typename Layer::gradients_type;
  static_assert(
      !decltype(detail::has_capacity(static_cast<const typename Layer::dispatch_type*>(nullptr)))::value,
      "hmoe::compress::nested_levels: the layer's dispatch strategy has a capacity, which would count rows per "
      "level: give the layer a strategy without one, dispatch::sorted{} for instance");
  static_assert(detail::can_have_levels(static_cast<const experts_type*>(nullptr)),
                "hmoe::compress::nested_levels: a bank of this layer has no neurons and is not packed (constant_bank, "
                "low_rank_bank, zero-cost banks, any_expert): nested widths by class or load are for glu_bank, "
                "gpt_oss_glu_bank, mlp_bank and what simd::pack makes of them");

  /// [levels][N] widths, as nested takes them.
  nested_levels(const Layer& layer, std::vector<std::vector<std::size_t>> widths)
      : layer_(&layer), widths_(checked(layer, std::move(widths))),
        experts_(detail::levels_of(std::vector<const experts_type*>(widths_.size(), &layer.experts()), layer.experts(),
                                   widths_)) {}
  nested_levels(const Layer&&, std::vector<std::vector<std::size_t>>) = delete;
  nested_levels(const nested_levels&) = delete;
  nested_levels(nested_levels&&) noexcept = default;
  nested_levels& operator=(const nested_levels&) = delete;
  nested_levels& operator=(nested_levels&&) noexcept = default;
  ~nested_levels() = default;

  [[nodiscard]] std::size_t levels() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t size() const noexcept { return layer_->size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return layer_->d_model(); }
  [[nodiscard]] vector_view<const std::size_t> widths(std::size_t level) const noexcept {
    return {widths_[level].data(), widths_[level].size()};
  }
  /// Expert e at level l under the id e · levels() + l.
  [[nodiscard]] const experts_type& experts() const noexcept { return experts_; }

  /// A tape for its passes: that of the layer has room for one level.
  [[nodiscard]] tape<value_type> make_tape(std::size_t max_tokens) const {
    return layer_->make_tape_with(experts_, max_tokens);
  }
  template <execution_context Context, level_choice Choice>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y, const Choice& choice,
               const routing_inputs<value_type>& inputs = {}) const {
    check(choice, x.rows());
    layer_->forward_with(ctx, experts_, x, y, inputs, ids_by(choice));
  }
  template <execution_context Context, level_choice Choice>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y, tape<value_type>& tape,
               const Choice& choice, const routing_inputs<value_type>& inputs = {}) const {
    check(choice, x.rows());
    layer_->forward_with(ctx, experts_, x, y, tape, inputs, ids_by(choice));
  }

  /// Where the gradients of the levels go: into those of the layer. Level 0 adds to them where they are; each other
  /// level has memory of its own, which backward adds to them level by level, so that threads do not meet.
  class gradients_part {
  public:
    gradients_part(gradients_part&&) noexcept = default;
    gradients_part& operator=(gradients_part&&) noexcept = default;
    gradients_part(const gradients_part&) = delete;
    gradients_part& operator=(const gradients_part&) = delete;
    ~gradients_part() = default;

  private:
    friend nested_levels;
    gradients_part(gradients_type& all, const std::vector<std::vector<std::size_t>>& widths)
        : own_(make_own(all.experts, widths)), experts_(make_views(all.experts, own_, widths)), router_(&all.router) {
      for (std::size_t l = 1; l < widths.size(); ++l) {
        experts_type part = detail::prefixes_of(all.experts, all.experts, {widths[l].data(), widths[l].size()});
        own_[l - 1].visit_parameters([&](const parameter_info&, matrix_view<value_type> v) { from_.push_back(v); });
        part.visit_parameters([&](const parameter_info&, matrix_view<value_type> v) { to_.push_back(v); });
      }
    }
    static std::vector<experts_type> make_own(experts_type& all, const std::vector<std::vector<std::size_t>>& widths) {
      std::vector<experts_type> own;
      for (std::size_t l = 1; l < widths.size(); ++l) {
        const experts_type part = detail::prefixes_of(all, all, {widths[l].data(), widths[l].size()});
        own.push_back(part); // copies own their memory
        hmoe::set_zero(own.back());
      }
      return own;
    }
    static experts_type make_views(experts_type& all, std::vector<experts_type>& own,
                                   const std::vector<std::vector<std::size_t>>& widths) {
      std::vector<experts_type*> sets{&all};
      for (experts_type& level : own)
        sets.push_back(&level);
      return detail::levels_of(sets, all, widths);
    }
    void add_levels() {
      for (std::size_t i = 0; i < from_.size(); ++i)
        for (std::size_t r = 0; r < from_[i].rows(); ++r)
          for (std::size_t c = 0; c < from_[i].cols(); ++c) {
            to_[i](r, c) += from_[i](r, c);
            from_[i](r, c) = 0;
          }
    }

    std::vector<experts_type> own_; ///< of levels above 0
    experts_type experts_;
    std::vector<matrix_view<value_type>> from_, to_; ///< tensors of own_, and their places in the layer's gradients
    typename Layer::router_type* router_;
  };
  [[nodiscard]] gradients_part part_of(gradients_type& gradients) const {
    static_assert(Layer::trainable, "hmoe::compress::nested_levels: part_of: the experts of this layer are packed for "
                                    "inference and have no parameters to train: take the layer that was packed");
    require(gradients.experts.size() == size() && gradients.experts.d_model() == d_model(),
            "the gradients are of a layer with ", gradients.experts.size(), " experts and d_model ",
            gradients.experts.d_model(), ", this one has ", size(), " and ", d_model());
    return gradients_part(gradients, widths_);
  }
  /// The backward pass of the forward pass that filled the tape, at its levels.
  template <execution_context Context>
  void backward(const Context& ctx, tape<value_type>& tape, matrix_view<const value_type> dy,
                matrix_view<value_type> dx, gradients_part& gradients, matrix_view<value_type> d_router_x = {}) const {
    layer_->backward_with(ctx, experts_, tape, dy, dx, gradients.experts_, *gradients.router_, d_router_x,
                          detail::planned_ids{levels(), size()});
    gradients.add_levels();
  }

  /// For objective::evaluate, with the layer's full widths.
  [[nodiscard]] routed_batch<value_type> routing(tape<value_type>& tape) const { return layer_->routing(tape); }
  /// Bytes of workspace that suffice for every pass over up to `tokens` tokens.
  template <execution_context Context>
  [[nodiscard]] std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool some_padding = false) const {
    const std::size_t counts = size() * sizeof(std::size_t) + 2 * memory_alignment; // of level_ids
    return layer_->workspace_bytes_with(ctx, experts_, tokens, some_padding) + counts;
  }

private:
  template <class Choice> [[nodiscard]] detail::level_ids<Choice> ids_by(const Choice& choice) const noexcept {
    return {choice, levels(), size(), layer_->router().routed()};
  }
  /// What can be said before anything is written.
  template <class Choice> void check(const Choice& choice, std::size_t tokens) const {
    if constexpr (std::same_as<Choice, level_by_token>) {
      require(choice.of_token.size() == tokens, "levels of ", choice.of_token.size(),
              " tokens are given, the batch has ", tokens);
      for (std::size_t t = 0; t < tokens; ++t)
        require(choice.of_token[t] < levels(), "token ", t, " shall run at level ", std::size_t{choice.of_token[t]},
                ", there are ", levels());
    } else if constexpr (std::same_as<Choice, level_by_load>) {
      require(choice.limits.size() + 1 == levels(), choice.limits.size(), " limits of loads are given for ", levels(),
              " levels, needed is one less than there are levels");
      for (std::size_t i = 0; i < choice.limits.size(); ++i)
        require(i == 0 ? choice.limits[0] >= 0 : choice.limits[i] > choice.limits[i - 1], "limit ", i, " of loads is ",
                choice.limits[i], ": limits ascend and are not below 0");
    }
  }
  static std::vector<std::vector<std::size_t>> checked(const Layer& layer,
                                                       std::vector<std::vector<std::size_t>> widths) {
    require(!widths.empty(), "nested_levels needs the widths of at least one level");
    for (std::size_t l = 0; l < widths.size(); ++l)
      require(widths[l].size() == layer.size(), "level ", l, " has ", widths[l].size(), " widths for a layer of ",
              layer.size(), " experts");
    return widths;
  }

  const Layer* layer_;
  std::vector<std::vector<std::size_t>> widths_;
  experts_type experts_;
};

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
