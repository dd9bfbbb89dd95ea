// SPDX-License-Identifier: MIT
#include "variant.hpp"

#include <hmoe/core/error.hpp>

#include "model_shape.hpp"
#include "run_config.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <set>

namespace language_model {
namespace {

using widths = std::vector<std::size_t>;

TEST_CASE("variants read from the command line") {
  const variant v = parse_variant("name=x,title=A title,experts=4,sizes=hybrid,total=90,router=top-p:0.6,"
                                  "loss=parameter-penalty:0.1,loss=router-entropy:3e-3");
  CHECK(v.name == "x");
  CHECK(v.title == "A title");
  CHECK(v.router == router_choice{"top-p", {0.6}});
  CHECK(v.coefficient("router-entropy") == 0.003);
  CHECK(v.coefficient("load-balance") == 0.0);
  CHECK(parse_variant("name=y").widths == widths{72, 88, 104, 120, 136, 152, 168, 184});
  CHECK(parse_variant("sizes=geometric:3,experts=3,total=26").widths == widths{2, 6, 18});
  CHECK(parse_variant("sizes=list:5/1/7").widths == widths{5, 1, 7});
  CHECK(parse_variant("sizes=uniform").homogeneous());
  CHECK(parse_variant("sizes=dense,total=256").dense());
  CHECK(parse_variant("sizes=dense").router == router_choice{"top-k", {1}});
  CHECK(parse_variant("sizes=dense,router=top-k:1").router == router_choice{"top-k", {1}});
  const variant shared =
      parse_variant("experts=2,total=40,sizes=uniform,shared=sigmoid-gated:64/8,loss=load-balance:1:to-one");
  CHECK(shared.shared == shared_choice{"sigmoid-gated", {64, 8}});
  CHECK(shared.all_widths() == widths{20, 20, 64, 8});
  CHECK(shared.shared_width() == 72);
  CHECK(shared.homogeneous());
  CHECK(shared.find_loss("load-balance")->option == "to-one");
  CHECK(parse_variant("shared=none").shared_width() == 0);
}

TEST_CASE("what a variant cannot be is said with what it could be") {
  const auto refused = [](const char* description, const char* why) {
    CHECK_THROWS_WITH_AS(parse_variant(description), doctest::Contains(why), hmoe::error);
  };
  refused("name", "key=value");
  refused("colour=red", "'colour' is unknown");
  refused("sizes=random", "there are uniform");
  refused("router=top-k", "should read router=top-k:K");
  refused("router=best", "top-k:K, top-p:P");
  refused("loss=noisy-load:1", "router=noisy-top-k");
  refused("loss=adaptive-l1:1", "router=relu");
  refused("router=top-k:9", "from 1 to its 8 experts, not 9");
  refused("router=top-k:1.5", "whole k");
  refused("router=top-p:0", "p above 0");
  refused("loss=balance:1", "load-balance:C");
  refused("loss=z:much", "should be a number, not 'much'");
  refused("loss=z:inf", "should be a finite number, not 'inf'");
  refused("router=sign-bias:2:nan", "finite number, not 'nan'");
  refused("sizes=list", "list:64/128/256");
  refused("loss=load-balance:1:to-two", "no option 'to-two'; there are load-balance:C[:to-k|to-one]");
  refused("loss=z:1:mean", "no option 'mean'");
  refused("loss=z:1,loss=z:2", "given twice");
  refused("shared=always-on", "there are none, always-on:W[/W…]");
  refused("shared=sometimes:3", "shared=sometimes:3 is unknown");
  refused("shared=always-on:3/0", "at least 1");
  refused("sizes=dense,shared=always-on:64", "add their width to total");
  refused("sizes=dense,router=top-p:0.6", "there is nothing to route, so leave out router=top-p");
  refused("router=top-k:2,sizes=dense", "there is nothing to route, so leave out router=top-k");
  refused("sizes=list:4/0", "at least 1");
  refused("name=a/b", "no name for a variant");
  CHECK_THROWS_WITH_AS(named_list("demos"), doctest::Contains("smoke, demo and full"), hmoe::error);
}

TEST_CASE("the penalty's balance: shares ∝ 1/width, activated width k × the harmonic mean") {
  const variant v = parse_variant("loss=parameter-penalty:0.1");
  const auto shares = predicted_shares(v);
  CHECK(std::reduce(shares.begin(), shares.end()) == doctest::Approx(1.0));
  CHECK(shares[0] / shares[7] == doctest::Approx(184.0 / 72.0));
  CHECK(predicted_activated_width(v).value_or(0) == doctest::Approx(233.5).epsilon(0.001));
  CHECK(predicted_activated_width(parse_variant("sizes=uniform")).value_or(0) == doctest::Approx(256.0));
  CHECK(predicted_activated_width(parse_variant("loss=parameter-penalty:0.1,shared=always-on:64")).value_or(0) ==
        doctest::Approx(predicted_activated_width(v).value_or(0) + 64));
  CHECK(predicted_activated_width(parse_variant("sizes=uniform,shared=always-on:64")).value_or(0) ==
        doctest::Approx(256 + 64));
  CHECK_FALSE(predicted_activated_width(parse_variant("name=no-loss")));
  // Of widths 1 : 2 : … : 128 the narrowest would have to be active more than once per token.
  CHECK_FALSE(predicted_activated_width(parse_variant("sizes=geometric,loss=parameter-penalty:0.1")));
}

TEST_CASE("the variants of a comparison have distinct names and controls that exist") {
  for (const auto& name : list_names()) {
    std::set<std::string> names;
    for (const auto& v : named_list(name))
      CHECK(names.insert(v.name).second);
    for (const auto& v : named_list(name))
      CHECK((v.control_of.empty() || names.contains(v.control_of)));
    CHECK_NOTHROW(validate(named_list(name)));
  }
  const auto refused = [](const std::vector<variant>& together, const char* why) {
    CHECK_THROWS_WITH_AS(validate(together), doctest::Contains(why), hmoe::error);
  };
  const variant a = parse_variant("name=a"), b = parse_variant("name=b,control-of=a");
  CHECK_NOTHROW(validate({b, a}));
  refused({b, a, b}, "two variants are named b");
  refused({b, parse_variant("name=c")},
          "variant b: control-of=a is no other variant of this comparison; there are b, c");
  refused({a, parse_variant("name=c,control-of=c")}, "control-of=c is no other variant");
  CHECK(homogeneous_control(parse_variant("name=x"), 233.5).widths == widths(8, 117));
}

TEST_CASE("a configuration survives its JSON form") {
  run_config config;
  config.what = parse_variant("name=x,sizes=hybrid,router=top-p:0.5,shared=always-on:5/6,loss=z:0.001,"
                              "loss=parameter-penalty:0.1:raw");
  config.seed = 9;
  config.corpus_fingerprint = 0xFEDCBA9876543210U;
  config.how.learning_rate = 0.1;
  const auto json = to_json(config);
  CHECK(to_json(run_config_from_json(json)) == json);
  CHECK(run_config_from_json(json).what.shared == config.what.shared);
  CHECK(run_config_from_json(json).what.losses == config.what.losses);
  CHECK(run_config_from_json(json).corpus_fingerprint == config.corpus_fingerprint);
}

TEST_CASE("FLOPs of a token of model S with 2 of 8 experts of width 128") {
  const model_shape s;
  CHECK(base_flops_per_token(s, 2 * 64 * 8) + expert_flops(s, 2 * 256) == 1'087'488.0);
  CHECK(parameters_without_experts(s) == 2 * 512 * 64 + 2 * (4 * 64 * 64 + 2 * 64) + 64);
}

} // namespace
} // namespace language_model
