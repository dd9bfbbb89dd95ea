// SPDX-License-Identifier: MIT
#include <hmoe/io/models/model_config.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <string>

using hmoe::io::models::model_config;

namespace {
model_config config_of(const char* text) { return {text, "c.json"}; }
template <class F> std::string config_error(const char* text, F ask) {
  return support::error_of([&] { static_cast<void>(ask(config_of(text))); });
}
} // namespace

TEST_CASE("values of config.json by any of their names; null counts as absent") {
  const model_config config = config_of(R"({"model_type": "m", "num_local_experts": 8, "n_group": null, "scale": 2,
      "norm": true, "act": "silu", "dense": [0, 3], "kinds": ["a"], "k": [2, 4], "part": {"n": 5}})");
  CHECK(config.family() == "m");
  CHECK(config.size({"num_experts", "num_local_experts"}) == 8);
  CHECK(config.size_or({"n_group"}, 1) == 1);
  CHECK(config.number({"scale"}) == 2);
  CHECK(config.number_or({"other"}, 0.5) == 0.5);
  CHECK(config.flag_or({"norm"}, false));
  CHECK(config.flag_or({"other"}, true));
  CHECK(config.text_or({"act"}, "") == "silu");
  CHECK(config.text_or({"other"}, "x") == "x");
  CHECK(config.sizes({"dense"}) == std::vector<std::size_t>{0, 3});
  CHECK(config.sizes({"other"}).empty());
  CHECK(config.texts({"kinds"}) == std::vector<std::string>{"a"});
  CHECK(config.size_of_layer({"k"}, 1) == 4);
  CHECK(config.size_of_layer({"num_local_experts"}, 1) == 8);
  CHECK(config.part("part").size({"n"}) == 5);
}

TEST_CASE("of a model of several parts the text is meant") {
  CHECK(config_of(R"({"model_type": "whole", "text_config": {"model_type": "text", "n": 1}})").family() == "text");
  CHECK(config_error(R"({"text_config": {"n": 0}})", [](const model_config& c) { return c.size({"n"}); }) ==
        "hmoe: c.json: text_config: \"n\" is 0, possible are 1 to 16777216");
}

TEST_CASE("what config.json cannot be is refused with the name and the number") {
  const auto n = [](const model_config& c) { return c.size({"n", "m"}); };
  CHECK(config_error("{}", n) == "hmoe: c.json has no value \"n\"");
  CHECK(config_error(R"({"n": null})", n) == "hmoe: c.json has no value \"n\"");
  CHECK(config_error(R"({"m": 0})", n) == "hmoe: c.json: \"m\" is 0, possible are 1 to 16777216");
  CHECK(config_error(R"({"n": 1152921504606846976})", n) ==
        "hmoe: c.json: \"n\" is 1152921504606846976, possible are 1 to 16777216");
  CHECK(config_error(R"({"n": -1})", n) ==
        "hmoe: c.json: \"n\" is a negative whole number, needed is a whole number from 0 to 2^64 - 1");
  CHECK(config_error(R"({"n": 1.5})", n).find("a real number") != std::string::npos);
  CHECK(config_error(R"({"n": "8"})", n).find("a text") != std::string::npos);
  CHECK(config_error("[1]", n) == "hmoe: c.json is an array, needed is an object");
  CHECK(config_error(R"({"text_config": 3})", n) ==
        "hmoe: c.json: text_config is a whole number from 0, needed is an object");
  CHECK(config_error("{", n).find("c.json is no JSON") != std::string::npos);
  CHECK(config_error(R"({"x": 1e999})", [](const model_config& c) { return c.number({"x"}); }) != "no error");
  CHECK(config_error(R"({"l": 2})", [](const model_config& c) {
          c.require_layer(2, {"l"});
          return 0;
        }) == "hmoe: c.json: the model has 2 layers, there is no layer 2");
  CHECK(config_error(R"({"act": "gelu"})", [](const model_config& c) {
          c.require_text({"act"}, {"silu", "swish"});
          return 0;
        }) == "hmoe: c.json: \"act\" is \"gelu\", this family's layers have \"silu\"");
  CHECK(config_error(R"({"k": [1]})", [](const model_config& c) { return c.size_of_layer({"k"}, 1); }) ==
        "hmoe: c.json: \"k\" has 1 values, none for layer 1");
  const support::scratch_folder folder;
  CHECK(support::error_of([&] {
          static_cast<void>(model_config::of_folder(folder.path().string()));
        }).ends_with("/config.json is not a file that can be read"));
}
