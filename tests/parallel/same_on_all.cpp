// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/description.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/same_on_all.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/weightings/scaled.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace {
using same_rank = hmoe::communicators::threads::member;
namespace of_ranks = hmoe::communicators;

/// The errors of the ranks where f(self) gives the layer's parts.
template <class F> std::vector<std::string> same_errors(std::size_t ranks, const F& f) {
  std::vector<std::string> texts(ranks);
  of_ranks::threads(ranks).run(
      [&](const same_rank& self) { texts[self.rank()] = support::error_of([&] { f(self); }); });
  return texts;
}
auto same_experts(std::size_t d, const std::vector<std::size_t>& widths) {
  return hmoe::expert_set{hmoe::experts::mlp_bank<double, hmoe::experts::relu>(d, widths)};
}
bool tells(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }
/// Experts of a user, with one tensor of so many rows.
struct same_kind {
  using value_type = double;
  std::size_t rows = 2;
  hmoe::matrix<double> weight{rows, 4};

  [[nodiscard]] static std::size_t d_model() noexcept { return 4; }
  static void forward(hmoe::matrix_view<const double>, hmoe::matrix_view<double>) noexcept {}
  static void backward(hmoe::matrix_view<const double>, hmoe::matrix_view<const double>, hmoe::matrix_view<double>,
                       same_kind&) noexcept {}
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"weight"}, weight.view());
  }
};
struct other_kind : same_kind {
  static void backward(hmoe::matrix_view<const double>, hmoe::matrix_view<const double>, hmoe::matrix_view<double>,
                       other_kind&) noexcept {}
};
/// A policy of a user.
struct picky {
  double taste = 0;
  std::string identity() const { return "taste " + std::to_string(taste); }
};
} // namespace

TEST_CASE("the texts of policies have their numbers") {
  CHECK(tells(hmoe::descriptions::describe(hmoe::routing::top_k<>{3}), "top_k"));
  CHECK(tells(hmoe::descriptions::describe(hmoe::routing::top_k<>{3}), " k = 3"));
  CHECK(tells(hmoe::descriptions::describe(hmoe::routing::top_p{0.625}), " p = 0.625"));
  CHECK(tells(hmoe::descriptions::describe(hmoe::routing::group_limited<>{.groups = 8, .kept = 4, .k = 2}),
              " k = 2 groups = 8 kept = 4"));
  CHECK(tells(hmoe::descriptions::describe(hmoe::routing::scaled<>{.factor = 2.5}), " factor = 2.5"));
  CHECK(tells(hmoe::descriptions::describe(picky{2}), " taste 2"));
  const auto router = [](std::size_t k) { return hmoe::routing::top_k_router<float>(4, 8, k); };
  CHECK(hmoe::descriptions::describe_router(router(2)) == hmoe::descriptions::describe_router(router(2)));
  CHECK(hmoe::descriptions::describe_router(router(2)) != hmoe::descriptions::describe_router(router(3)));
}

TEST_CASE("layers whose experts, router or strategy differ in what types do not show are refused") {
  namespace kinds = hmoe::experts;
  using glu = kinds::glu_bank<double, kinds::silu>;
  using mlp = kinds::mlp_bank<double, kinds::relu>;
  /// Experts by rank; the router and strategy are the same.
  const auto with = [](const auto& experts) {
    return same_errors(2, [&](const same_rank& self) {
      auto own = experts(self.rank());
      const std::size_t d = own.d_model(), n = own.size();
      hmoe::moe_layer layer{std::move(own), hmoe::routing::top_k_router<double>(d, n, 1),
                            hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(n, 2)}};
    });
  };
  const auto refused = [](const std::vector<std::string>& texts, const std::string& what, const std::string& first,
                          const std::string& second) {
    CHECK(texts[1] == texts[0]);
    CAPTURE(texts[0]);
    CHECK(texts[0].starts_with("hmoe: expert_parallel: ranks differ in " + what + ": rank 0 has "));
    CHECK(tells(texts[0], first));
    CHECK(tells(texts[0], second));
  };
  const std::vector<std::string> none(2, "no error");
  // Banks of other sizes, at one width, and other ids.
  refused(
      with([](std::size_t r) {
        return hmoe::expert_set{glu(4, std::vector<std::size_t>(2 - r, 3)), mlp(4, std::vector<std::size_t>(1 + r, 3))};
      }),
      "experts", "0 to 1: bank 0 gate up down; 2: bank 1 up down", "0: bank 0 gate up down; 1 to 2: bank 1 up down");
  refused(with([](std::size_t r) {
            return hmoe::expert_set{hmoe::expert_ids{{{0, 1 + r}, {2 - r}}}, glu(4, {3, 3}), mlp(4, {3})};
          }),
          "experts", "; 1: bank 1", "; 2: bank 1");
  refused(with([](std::size_t r) {
            return hmoe::expert_set{glu(4, {3, 3}, r == 0 ? kinds::biases::none : kinds::biases::all)};
          }),
          "experts", "down,", "down_bias");
  refused(with([](std::size_t r) {
            return hmoe::expert_set{kinds::gpt_oss_glu_bank<double>(4, {3, 3}, {.alpha = r == 0 ? 1.5 : 2.0})};
          }),
          "experts", "gate limit = 7 alpha = 1.5", "gate limit = 7 alpha = 2");
  refused(with([](std::size_t r) {
            using any = kinds::any_expert<double>;
            return hmoe::expert_set{
                kinds::bank_of{std::vector<any>{any(same_kind{}), r == 0 ? any(same_kind{}) : any(other_kind{})}}};
          }),
          "experts", "0 to 1: bank 0 ", "other_kind");
  // Another number of parameters, which widths do not tell, of an expert on both ranks.
  const auto texts = same_errors(2, [](const same_rank& self) {
    hmoe::moe_layer layer{
        hmoe::expert_set{kinds::bank_of{std::vector<same_kind>{same_kind{}, same_kind{2 + self.rank()}}}},
        hmoe::routing::top_k_router<double>(4, 2, 1),
        hmoe::dispatch::expert_parallel{self, hmoe::expert_placement(2, {{{0, 1.0}}, {{0, 0.5}, {1, 0.5}}})}};
  });
  CHECK(texts[1] == "hmoe: expert 1 has 12 parameters on rank 1, and 8 on rank 0");
  CHECK(texts[0] == "hmoe: expert_parallel: rank 1 has failed: " + texts[1].substr(6));
  // What is of other ranks' experts alone has no weights.
  CHECK(with([](std::size_t r) {
          return hmoe::expert_set{
              hmoe::expert_ids{{{0, 2}, {1}}},
              glu(4, r == 0 ? std::vector<std::size_t>{3, 0} : std::vector<std::size_t>{0, 5}, kinds::biases::all),
              mlp(4, {r == 0 ? 2U : 0U}, kinds::biases::all)};
        }) == none);

  // Routers.
  const auto routed = [](const auto& router) {
    return same_errors(2, [&](const same_rank& self) {
      hmoe::moe_layer layer{same_experts(4, {2, 2, 2, 2}), router(self.rank()),
                            hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(4, 2)}};
    });
  };
  using chosen = hmoe::routing::any_router<double, hmoe::context<hmoe::backends::reference>>;
  const auto by_k = [](std::size_t k) { return hmoe::routing::top_k_router<double>(4, 4, k); };
  CHECK(routed([&](std::size_t) { return chosen(by_k(2)); }) == none);
  refused(routed([](std::size_t r) { return chosen(hmoe::routing::top_p_router<double>(4, 4, r == 0 ? 0.25 : 0.5)); }),
          "the router", "p = 0.25", "p = 0.5");
  refused(routed([&](std::size_t r) {
            return r == 0 ? chosen(by_k(4)) : chosen(hmoe::routing::top_p_router<double>(4, 4, 0.5));
          }),
          "the router", "top_k", "top_p");

  // Strategies that take part in other operations.
  refused(same_errors(2,
                      [](const same_rank& self) {
                        const auto make = [&](auto strategy) {
                          hmoe::moe_layer layer{same_experts(4, {2, 2, 2, 2}),
                                                hmoe::routing::top_k_router<double>(4, 4, 2), std::move(strategy)};
                        };
                        const auto placed = hmoe::placement::contiguous(4, 2);
                        if (self.rank() == 0)
                          make(hmoe::dispatch::expert_parallel{self, placed});
                        else
                          make(hmoe::dispatch::expert_parallel_summed{self, placed});
                      }),
          "the strategy", "expert_parallel of ", "expert_parallel_summed of ");
}

TEST_CASE("texts that differ are told on every rank, the first of them") {
  const auto texts = same_errors(3, [](const same_rank& self) {
    const std::vector<of_ranks::described> own{{"the colour", "red"},
                                               {"the size", self.rank() == 2 ? "much larger" : "small"},
                                               {"the weight", std::to_string(self.rank())}};
    of_ranks::require_same(self, std::span(own), "a test");
  });
  for (const std::string& text : texts)
    CHECK(text == "hmoe: a test: ranks differ in the size: rank 0 has small, rank 2 has much larger");
}

TEST_CASE("layers that differ between ranks are refused when they are made, on every rank") {
  const auto make = [](const same_rank& self, auto experts, std::size_t k) {
    const std::size_t d = experts.d_model(), n = experts.size();
    hmoe::moe_layer layer{std::move(experts), hmoe::routing::top_k_router<double>(d, n, k),
                          hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(4, self.size())}};
    return layer;
  };
  auto texts =
      same_errors(2, [&](const same_rank& self) { make(self, same_experts(4, {1, 2, 3, 4}), 1 + self.rank()); });
  CHECK(texts[0].starts_with("hmoe: expert_parallel: ranks differ in the router: rank 0 has "));
  CHECK(tells(texts[0], "selection k = 1"));
  CHECK(tells(texts[0], "selection k = 2"));
  CHECK(texts[1] == texts[0]);
  texts = same_errors(2, [&](const same_rank& self) { make(self, same_experts(4 + self.rank(), {1, 2, 3, 4}), 1); });
  CHECK(tells(texts[1], "ranks differ in experts: rank 0 has "));
  CHECK(tells(texts[1], "d_model = 5 experts = 4"));
  CHECK(texts[1] == texts[0]);
  // Of another type.
  texts = same_errors(2, [&](const same_rank& self) {
    if (self.rank() == 0)
      make(self, same_experts(4, {1, 2, 3, 4}), 1);
    else
      make(self, hmoe::expert_set{hmoe::experts::mlp_bank<double, hmoe::experts::silu>(4, {1, 2, 3, 4})}, 1);
  });
  CHECK(tells(texts[0], "relu"));
  CHECK(tells(texts[0], "silu"));
  CHECK(texts[1] == texts[0]);
  // Widths: experts 2 and 3 are on rank 1, and elsewhere may have no weights.
  texts = same_errors(2, [&](const same_rank& self) {
    const auto layer = make(
        self,
        same_experts(4, self.rank() == 0 ? std::vector<std::size_t>{1, 2, 0, 4} : std::vector<std::size_t>{0, 0, 3, 4}),
        1);
    hmoe::require(layer.widths()[0] == 1 && layer.widths()[2] == 3 && layer.widths()[3] == 4, "widths are lost");
  });
  CHECK(texts == std::vector<std::string>(2, "no error"));
  texts = same_errors(
      2, [&](const same_rank& self) { make(self, same_experts(4, {1, 2, 3, self.rank() == 0 ? 5U : 4U}), 1); });
  CHECK(texts[0] == "hmoe: expert 3 has width 5 on rank 0, and 4 on rank 1");
  CHECK(texts[1] == "hmoe: expert_parallel: rank 0 has failed: expert 3 has width 5 on rank 0, and 4 on rank 1");
  // A fault of one rank alone.
  texts = same_errors(2, [&](const same_rank& self) {
    hmoe::moe_layer layer{same_experts(4, {1, 2, 3, 4}), hmoe::routing::top_k_router<double>(4, 4 + self.rank(), 1),
                          hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(4, 2)}};
  });
  CHECK(texts[1] == "hmoe: the router chooses among 5 experts, the layer has 4");
  CHECK(texts[0] == "hmoe: expert_parallel: rank 1 has failed: the router chooses among 5 experts, the layer has 4");
  // The inner strategy, and seeds.
  texts = same_errors(2, [&](const same_rank& self) {
    hmoe::moe_layer layer{same_experts(4, {1, 2, 3, 4}), hmoe::routing::top_k_router<double>(4, 4, 1),
                          hmoe::dispatch::expert_parallel{self, hmoe::placement::contiguous(4, 2),
                                                          hmoe::dispatch::blocked<>{8 + self.rank()}}};
  });
  CHECK(tells(texts[0], "ranks differ in the strategy"));
  CHECK(tells(texts[0], "rows = 9"));
  texts = same_errors(2, [&](const same_rank& self) {
    make(self, same_experts(4, {1, 2, 3, 4}), 1).initialize(hmoe::seed{7 + self.rank()});
  });
  CHECK(texts[0] == "hmoe: expert_parallel: ranks differ in the seed: rank 0 has 7 output_gain = 1 router_stddev = "
                    "0.02, rank 1 has 8 output_gain = 1 router_stddev = 0.02");
  CHECK(texts[1] == texts[0]);
}
