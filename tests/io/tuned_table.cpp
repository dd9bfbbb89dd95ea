// SPDX-License-Identifier: MIT
#include <hmoe/io/tuned_table.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace hmoe;
using dispatch::strategy;

namespace {
const dispatch::tuned_table table{
    "A \"CPU\"",
    {768, 8, 1234, 2},
    {{1, 2, strategy::per_token, strategy::sorted}, {64, 7.5, strategy::scattered, strategy::blocked}}};
std::string refusal(std::string text, const std::string& what, const std::string& by) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  text.replace(at, what.size(), by);
  return support::error_of([&] { static_cast<void>(io::parse_tuned_table(text, "t.json", table.cpu)); });
}
} // namespace

TEST_CASE("a table comes back from its text") {
  const dispatch::tuned_table back = io::parse_tuned_table(io::tuned_table_text(table), "t.json", table.cpu);
  CHECK(back.cpu == table.cpu);
  CHECK(back.shape == table.shape);
  REQUIRE(back.choices.size() == 2);
  CHECK(back.choices[1].tokens == 64);
  CHECK(back.choices[1].effective_experts == 7.5);
  CHECK(back.choices[1].inference == strategy::scattered);
  CHECK(back.choices[1].training == strategy::blocked);
  CHECK(back.choices[0].inference == strategy::per_token);
}

TEST_CASE("loads that are nearly the same come back as they are") {
  dispatch::tuned_table close = table;
  close.choices = {{4, 1e-9, strategy::sorted, strategy::sorted},
                   {4, 1.0 / 3, strategy::per_token, strategy::sorted},
                   {4, 1.0 / 3 + 1e-15, strategy::sorted, strategy::sorted}};
  const dispatch::tuned_table back = io::parse_tuned_table(io::tuned_table_text(close), "t.json", table.cpu);
  REQUIRE(back.choices.size() == 3);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(back.choices[i].effective_experts == close.choices[i].effective_experts);
}

TEST_CASE("wrong and foreign tables are refused in words") {
  const std::string text = io::tuned_table_text(table);
  CHECK(refusal(text, "A \\\"CPU\\\"", "B") ==
        "hmoe: t.json was tuned on \"B\", this machine is \"A \"CPU\"\": tune again");
  CHECK(refusal(text, "\"hmoe_tuned_table\": 2", "\"hmoe_tuned_table\": 1") ==
        "hmoe: t.json has version 1 of tuned tables, this library reads 2: tune again");
  CHECK(refusal(text, "hmoe_tuned_table", "other").starts_with("hmoe: t.json has no member"));
  CHECK(refusal(text, "per_token", "fast").starts_with("hmoe: no dispatch strategy is called \"fast\""));
  CHECK(refusal(text, "\"tokens\": 64", "\"tokens\": 0") ==
        "hmoe: a tuned table has 0 tokens in line 1, which do not ascend from 1");
  CHECK(refusal(text, "7.5", "-7.5") ==
        "hmoe: a tuned table has -7.5 effective experts in line 1, which do not ascend from above 0");
  CHECK(refusal(text, "\"tokens\": 64", "\"tokens\": -64").starts_with("hmoe: t.json: choices[1]: tokens is"));
  CHECK(refusal(text, "]}", "").starts_with("hmoe: t.json is no JSON"));
  dispatch::tuned_table none = table;
  none.choices.clear();
  CHECK(support::error_of([&] {
          static_cast<void>(io::parse_tuned_table(io::tuned_table_text(none), "t.json", table.cpu));
        }) == "hmoe: t.json has no choices: tune again");
}

TEST_CASE("files of this machine are read back") {
  const support::scratch_folder folder;
  const std::string path = (folder.path() / "tuned.json").string();
  dispatch::tuned_table own = table;
  own.cpu = io::cpu_name();
  io::write_tuned_table(own, path);
  CHECK(io::read_tuned_table(path).shape == table.shape);
  io::write_tuned_table(table, path);
  CHECK(support::error_of([&] { static_cast<void>(io::read_tuned_table(path)); }).find("was tuned on \"A ") !=
        std::string::npos);
}
