// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/parameter.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/diagnosis.hpp>
#include <hmoe/experts/run.hpp>
#include <hmoe/experts/run_backward.hpp>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe {

/// Which id each expert of each bank has: of_bank[b][i] is that of expert i of bank b. So a constant or a pruned expert
/// can stand in the middle of a list: expert_set{expert_ids{{{0, 1, 3}, {2}}}, glu, constant}.
struct expert_ids {
  std::vector<std::vector<std::size_t>> of_bank;
};

namespace detail {
/// Where an expert is: its bank, and its id within that.
struct expert_place {
  std::size_t bank, local;
};
/// That of each id. hmoe::error unless each id from 0 to total − 1 comes once, ascending within a bank.
inline std::vector<expert_place> places_of(const expert_ids& ids, std::size_t total) {
  constexpr auto nowhere = static_cast<std::size_t>(-1);
  std::vector<expert_place> places(total, {nowhere, nowhere});
  for (std::size_t b = 0; b < ids.of_bank.size(); ++b)
    for (std::size_t i = 0; i < ids.of_bank[b].size(); ++i) {
      const std::size_t e = ids.of_bank[b][i];
      require(e < total, "bank ", b, " has an expert of id ", e, ", possible are 0 to ", total - 1);
      require(places[e].bank == nowhere, "expert ", e, " is in bank ", places[e].bank, " and in bank ", b);
      require(i == 0 || ids.of_bank[b][i - 1] < e, "the ids of bank ", b,
              " do not ascend: ", i == 0 ? 0 : ids.of_bank[b][i - 1], " before ", e);
      places[e] = {b, i};
    }
  return places;
}
} // namespace detail

/// Banks of different kinds under one numbering, bank after bank unless expert_ids says otherwise. Routers, losses,
/// statistics and parameters see these ids. A single `expert` may be given in place of a bank.
template <class... Banks> class expert_set {
  static_assert(sizeof...(Banks) >= 1, "hmoe::expert_set: Banks is empty: give at least one bank, "
                                       "for instance experts::glu_bank<float, experts::silu>");
  using fault = detail::bank_fault;
  static_assert(detail::none_has<fault::not_copyable, Banks...>,
                "hmoe::expert_set: an element of Banks cannot be copied and assigned: its gradients are a copy of it; "
                "did you keep a reference or a const member?");
  static_assert(detail::none_has<fault::no_value_type, Banks...>,
                "hmoe::expert_set: an element of Banks is no expert: it lacks value_type, float or double");
  static_assert(detail::none_has<fault::other_value_type, Banks...>,
                "hmoe::expert_set: the value_type of an element of Banks is neither float nor double");
  static_assert(detail::none_has<fault::no_d_model, Banks...>,
                "hmoe::expert_set: an element of Banks lacks d_model(), const, the size of a token");
  static_assert(detail::none_has<fault::no_visit_parameters, Banks...>,
                "hmoe::expert_set: an element of Banks lacks visit_parameters(f), which calls f(parameter_info, "
                "matrix_view<T>) for each of its tensors");
  static_assert(detail::none_has<fault::no_forward, Banks...>,
                "hmoe::expert_set: an element of Banks lacks forward: forward(x, y), const, for a single expert, or "
                "forward(math, e, x, y, saved), const, for a bank");
  static_assert(detail::none_has<fault::no_expert_backward, Banks...>,
                "hmoe::expert_set: an expert among Banks lacks backward(x, dy, dx, gradients), const: it writes dx and "
                "adds to the tensors of gradients, an object of its own type");
  static_assert(
      detail::none_has<fault::no_bank_backward, Banks...>,
      "hmoe::expert_set: a bank among Banks lacks backward(math, e, x, saved, dy, dx, scratch, gradients), const");
  static_assert(detail::none_has<fault::no_bank, Banks...>,
                "hmoe::expert_set: an element of Banks has forward and backward and is still no hmoe::expert_bank: see "
                "the list of requirements in hmoe/experts/bank.hpp (size, width, saved_per_row, scratch_per_row, "
                "flops_per_row, parameter_count, initialize); hmoe/testing/expert_laws.hpp tells more");

public:
  using value_type = typename std::tuple_element_t<0, std::tuple<Banks...>>::value_type;
  static_assert((std::same_as<typename Banks::value_type, value_type> && ...),
                "hmoe::expert_set: Banks differ in value_type: give all of them float, or all of them double");

  /// Whether all banks have parameters, so that a layer of them can be trained.
  static constexpr bool trainable = (!inference_bank<Banks> && ...);

  /// Numbered bank after bank.
  explicit expert_set(Banks... banks) : banks_(std::move(banks)...) {
    std::size_t next = 0;
    expert_ids in_order;
    const auto add = [&](std::size_t count) {
      std::vector<std::size_t>& ids = in_order.of_bank.emplace_back(count);
      std::iota(ids.begin(), ids.end(), next);
      next += count;
    };
    std::apply([&](const auto&... bank) { (..., add(bank.size())); }, banks_);
    number(std::move(in_order));
  }
  /// Numbered as the caller says. hmoe::error unless each id from 0 to N − 1 comes once, ascending within a bank.
  expert_set(expert_ids ids, Banks... banks) : banks_(std::move(banks)...) { number(std::move(ids)); }

  /// Number of experts N of all banks.
  [[nodiscard]] std::size_t size() const noexcept { return places_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return std::get<0>(banks_).d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.width(i)}; });
  }
  [[nodiscard]] std::size_t saved_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.saved_per_row(i)}; });
  }
  /// Memory of expert e's parameters.
  [[nodiscard]] std::size_t bytes(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) -> std::size_t {
      if constexpr (requires { bank.bytes(i); })
        return bank.bytes(i);
      else
        return bank.parameter_count(i) * sizeof(value_type);
    });
  }
  [[nodiscard]] std::size_t scratch_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.scratch_per_row(i)}; });
  }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return std::size_t{bank.parameter_count(i)}; });
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const {
    return at(e, [](const auto& bank, std::size_t i) { return double{bank.flops_per_row(i)}; });
  }

  template <std::size_t B> [[nodiscard]] auto& bank() noexcept { return std::get<B>(banks_); }
  template <std::size_t B> [[nodiscard]] const auto& bank() const noexcept { return std::get<B>(banks_); }

  /// y = expert_e(x) for n rows; saved is [n × saved_per_row(e)].
  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const value_type> x, matrix_view<value_type> y,
               matrix_view<value_type> saved) const {
    at(e, [&](const auto& bank, std::size_t i) {
      if constexpr (!inference_bank<std::remove_cvref_t<decltype(bank)>>) { // these never come one expert at a time
        [[maybe_unused]] probes::watch<Math> watched;
        if constexpr (probes::observed<Math>)
          if constexpr (!probes::observes_stages<std::remove_cvref_t<decltype(bank)>>)
            watched.begin(math, experts::whole_expert(bank, i, x.rows(), probes::direction::forward));
        bank.forward(math, i, x, y, saved);
      }
      return 0;
    });
  }
  /// dx = ∂L/∂x, gradients += ∂L/∂weights; scratch is [n × scratch_per_row(e)].
  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const value_type> x, matrix_view<const value_type> saved,
                matrix_view<const value_type> dy, matrix_view<value_type> dx, matrix_view<value_type> scratch,
                expert_set& gradients) const {
    backward_in_bank<0>(math, e, x, saved, dy, dx, scratch, gradients);
  }

  /// The rows of many experts, each by whoever computes it best (hmoe/experts/run.hpp): y, and what backward needs.
  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows) const {
    experts::forward_rows(ctx, *this, rows);
  }
  /// dx of all rows, gradients += ∂L/∂weights.
  template <execution_context Context>
  void backward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows, expert_set& gradients) const {
    experts::backward_rows(ctx, *this, rows, gradients);
  }
  /// These take from dry.workspace(), which only counts, what the passes take for rows within the limits; `scatters`:
  /// rows add their results to tokens.
  template <execution_context Context>
  void lay_out_forward_rows(const Context& dry, const row_limits& limits, bool scatters = false) const {
    experts::lay_out_forward_rows<value_type>(dry, *this, limits, scatters);
  }
  template <execution_context Context> void lay_out_backward_rows(const Context& dry, const row_limits& limits) const {
    if constexpr (trainable)
      experts::lay_out_backward_rows<value_type>(dry, *this, limits);
  }
  /// Who computes the rows of expert e in this context, forward.
  template <execution_context Context>
  [[nodiscard]] experts::runner runner_of(const Context& ctx, std::size_t e) const {
    return at(e, [&](const auto& bank, std::size_t) { return experts::forward_runner(ctx, bank); });
  }

  /// Whether the rows of expert e are read where tokens are and added to them by whoever computes them, forward.
  template <execution_context Context> [[nodiscard]] bool scatters_itself(const Context& ctx, std::size_t e) const {
    return at(e, [&](const auto& bank, std::size_t) { return experts::scatters_itself(ctx, bank); });
  }
  /// Phases, between which threads wait for one another, that the rows of all banks take together, forward.
  template <execution_context Context> [[nodiscard]] std::size_t phases_of(const Context& ctx) const {
    std::size_t banks = 0, tiles = 0;
    for_each_bank([&](const auto& bank, auto) {
      const experts::runner who = experts::forward_runner(ctx, bank);
      banks += who == experts::runner::backend ? 4 : who == experts::runner::bank ? 3 : 0;
      tiles = who == experts::runner::tiles ? 1 : tiles;
    });
    return banks + tiles;
  }
  /// How often a row that scatters is read or written beside the products, forward, at most: 2 where a bank adds
  /// results to the tokens, 4 where the backend keeps them until then, 6 where rows are gathered first.
  template <execution_context Context> [[nodiscard]] std::size_t scatter_copies(const Context& ctx) const {
    std::size_t most = 0;
    for_each_bank([&](const auto& bank, auto) {
      const bool itself = experts::scatters_itself(ctx, bank);
      const std::size_t own = !itself ? 6 : experts::forward_runner(ctx, bank) == experts::runner::bank ? 2 : 4;
      most = std::max(most, own);
    });
    return most;
  }
  /// Whether those of all experts are, in training as well: forward_rows keeps outputs, and backward_rows takes rows
  /// that scatter.
  template <execution_context Context> [[nodiscard]] bool gathers_rows(const Context& ctx) const {
    bool all = true;
    for_each_bank([&](const auto& bank, auto) { all = all && experts::backend_gathers(ctx, bank); });
    return all;
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    const auto read = hmoe::detail::read_with(visit);
    visit_in(*this, hmoe::detail::visitor_reference<const value_type>(read));
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit_in(*this, hmoe::detail::visitor_reference<value_type>(visit));
  }
  /// Random streams are numbered bank after bank, whatever the ids are.
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    std::apply(
        [&](auto&... bank) {
          (...,
           (bank.initialize(key, first_stream, options), first_stream += bank.size() * experts::streams_per_expert));
        },
        banks_);
  }

  [[nodiscard]] const expert_ids& ids() const noexcept { return ids_; }
  /// Whether experts are numbered bank after bank.
  [[nodiscard]] bool numbered_in_order() const noexcept {
    for (std::size_t e = 1; e < size(); ++e)
      if (places_[e].bank < places_[e - 1].bank)
        return false;
    return true;
  }
  /// Which bank expert e is in.
  [[nodiscard]] std::size_t bank_index(std::size_t e) const noexcept { return places_[e].bank; }
  /// The id of expert e within its bank.
  [[nodiscard]] std::size_t local_id(std::size_t e) const noexcept { return places_[e].local; }

  /// f(bank, ids of its experts) for each bank in order.
  template <class F> void for_each_bank(F&& f) const {
    std::size_t b = 0;
    std::apply([&](const auto&... bank) { (..., f(bank, ids_of(b++))); }, banks_);
  }

  /// f(bank, ids of its experts, the bank of `other` in its place) for each bank in order.
  template <class F> void for_each_bank_with(expert_set& other, F&& f) const {
    [&]<std::size_t... B>(std::index_sequence<B...>) {
      (..., f(std::get<B>(banks_), ids_of(B), std::get<B>(other.banks_)));
    }(std::index_sequence_for<Banks...>{});
  }

private:
  void number(expert_ids ids) {
    require(ids.of_bank.size() == sizeof...(Banks), "expert_ids for ", ids.of_bank.size(), " banks, given are ",
            sizeof...(Banks));
    std::size_t total = 0, b = 0;
    std::apply(
        [&](const auto&... bank) {
          (..., [&] {
            require(bank.d_model() == d_model(), "bank ", b, " has d_model ", bank.d_model(), ", the first bank ",
                    d_model());
            require(ids.of_bank[b].size() == bank.size(), "bank ", b, " has ", bank.size(), " experts and ",
                    ids.of_bank[b].size(), " ids");
            total += bank.size();
            ++b;
          }());
        },
        banks_);
    places_ = detail::places_of(ids, total);
    ids_ = std::move(ids);
  }
  [[nodiscard]] vector_view<const std::size_t> ids_of(std::size_t bank) const noexcept {
    return {ids_.of_bank[bank].data(), ids_.of_bank[bank].size()};
  }
  template <class Self, class T> static void visit_in(Self& self, hmoe::detail::visitor_reference<T> visit) {
    std::size_t b = 0;
    std::apply(
        [&](auto&... bank) {
          (..., hmoe::detail::visit_part(bank, [&, own = b++](const parameter_info& info, auto view) {
             visit(parameter_info{info.name, info.decay, self.ids_.of_bank[own][info.expert], info.trained}, view);
           }));
        },
        self.banks_);
  }
  /// f(bank, local id) for the bank that holds expert e.
  template <std::size_t B = 0, class F> auto at(std::size_t e, F&& f) const {
    if constexpr (B + 1 < sizeof...(Banks))
      if (places_[e].bank != B)
        return at<B + 1>(e, std::forward<F>(f));
    return f(std::get<B>(banks_), places_[e].local);
  }
  template <std::size_t B, class Math>
  void backward_in_bank(const Math& math, std::size_t e, matrix_view<const value_type> x,
                        matrix_view<const value_type> saved, matrix_view<const value_type> dy,
                        matrix_view<value_type> dx, matrix_view<value_type> scratch, expert_set& gradients) const {
    if constexpr (B + 1 < sizeof...(Banks))
      if (places_[e].bank != B)
        return backward_in_bank<B + 1>(math, e, x, saved, dy, dx, scratch, gradients);
    const auto& bank = std::get<B>(banks_);
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math> && !probes::observes_stages<std::remove_cvref_t<decltype(bank)>>)
      watched.begin(math, experts::whole_expert(bank, places_[e].local, x.rows(), probes::direction::backward));
    bank.backward(math, places_[e].local, x, saved, dy, dx, scratch, std::get<B>(gradients.banks_));
  }

  std::tuple<Banks...> banks_;
  expert_ids ids_;
  std::vector<detail::expert_place> places_; ///< by id
};

namespace detail {
template <class B> struct as_bank {
  using type = B;
};
template <expert E>
  requires(!expert_bank<E>)
struct as_bank<E> {
  using type = experts::bank_of<E>;
};
} // namespace detail

template <class... Kinds> expert_set(Kinds...) -> expert_set<typename detail::as_bank<Kinds>::type...>;
template <class... Kinds> expert_set(expert_ids, Kinds...) -> expert_set<typename detail::as_bank<Kinds>::type...>;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
