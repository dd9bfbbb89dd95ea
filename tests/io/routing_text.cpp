// SPDX-License-Identifier: MIT
#include <hmoe/io/routing_text.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

using hmoe::io::from_routing_text;
using hmoe::io::read_routing_text;
using hmoe::io::routing_log_record;
using hmoe::io::to_routing_text;

namespace {

template <class A, class B> bool equal_bits(const A& a, const B& b) {
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0);
}
template <class T> bool same_record(const routing_log_record<T>& a, const routing_log_record<T>& b) {
  return a.step == b.step && a.layer == b.layer && a.experts == b.experts && a.weights_on_input == b.weights_on_input &&
         equal_bits(a.assigned.offsets(), b.assigned.offsets()) &&
         equal_bits(a.assigned.experts(), b.assigned.experts()) &&
         equal_bits(a.assigned.weights(), b.assigned.weights()) && equal_bits(a.logits, b.logits) &&
         equal_bits(a.probabilities, b.probabilities) && a.token_ids == b.token_ids && a.valid == b.valid &&
         a.assigned.valid_tokens() == b.assigned.valid_tokens();
}
template <class T> routing_log_record<T> drawn_record(std::uint64_t seed, std::size_t tokens) {
  support::random_source random(seed);
  routing_log_record<T> record;
  record.step = (std::uint64_t{1} << 63U) + seed; // no double holds it
  record.layer = seed;
  record.experts = 6;
  record.weights_on_input = seed % 2 == 0;
  record.assigned.resize_tokens(tokens);
  std::vector<hmoe::index_t> ids;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (hmoe::index_t e = 0; e < 6; ++e)
      if (random.real() > 0)
        ids.push_back(e);
    record.assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(ids.size());
  }
  record.assigned.resize_entries();
  std::ranges::copy(ids, record.assigned.experts().begin());
  for (T& weight : record.assigned.weights())
    weight = static_cast<T>(random.real() * 1e-3);
  record.logits = support::random_matrix<T>(random, tokens, 5);
  record.probabilities = support::random_matrix<T>(random, tokens, 5);
  for (std::size_t t = 0; t < tokens; ++t) {
    record.token_ids.push_back(static_cast<hmoe::index_t>(random.size(0, 1000)));
    record.valid.push_back(t == 1 ? 0 : 1);
  }
  record.assigned.set_padding(tokens > 1 ? 1 : 0);
  return record;
}
std::string refusal(const std::string& text) {
  return support::error_of([&] { static_cast<void>(from_routing_text<float>(text, "log, line 3")); });
}

} // namespace

TEST_CASE("a line as other tools write it") {
  const auto record = from_routing_text<float>(
      R"({"expert_count": 8, "engine": "x", "experts": [[3, 0], [], [5]], "weights": [[0.75, 0.25], [], [1]], "layer": 2})",
      "line");
  CHECK(record.step == 0);
  CHECK(record.layer == 2);
  CHECK(record.experts == 8);
  CHECK(record.assigned.tokens() == 3);
  const auto ids = record.assigned.experts();
  const auto weights = record.assigned.weights();
  REQUIRE(ids.size() == 3);
  CHECK(ids[0] == 0); // in ascending order, each with its weight
  CHECK(weights[0] == 0.25F);
  CHECK(ids[1] == 3);
  CHECK(weights[1] == 0.75F);
  CHECK(ids[2] == 5);
  CHECK(
      to_routing_text(record) ==
      R"({"step": 0, "layer": 2, "expert_count": 8, "tokens": 3, "experts": [[0, 3], [], [5]], "weights": [[0.25, 0.75], [], [1]]})");
  // Without weights they are equal.
  const auto equal = from_routing_text<double>(R"({"expert_count": 4, "experts": [[0, 1, 2, 3]]})", "line");
  CHECK(equal.assigned.weights()[3] == 0.25);
  CHECK(from_routing_text<float>(R"({"expert_count": 4, "experts": []})", "line").assigned.tokens() == 0);
}

TEST_CASE_TEMPLATE("a binary log becomes text and text a binary log, bit for bit", T, float, double) {
  const support::scratch_folder folder;
  std::vector<routing_log_record<T>> records;
  for (std::uint64_t seed = 1; seed <= 3; ++seed)
    records.push_back(drawn_record<T>(seed, seed == 2 ? 0 : 40));
  records[0].logits(0, 0) = -T(0);
  records[0].logits(0, 1) = std::numeric_limits<T>::denorm_min();
  records[0].logits(0, 2) = std::numeric_limits<T>::max();
  records[0].logits(0, 3) = -std::numeric_limits<T>::infinity(); // an expert out of service
  records[0].logits(0, 4) = std::numeric_limits<T>::quiet_NaN();
  const std::string binary = folder.path() / "a.bin", text = folder.path() / "a.jsonl", again = folder.path() / "b.bin";
  hmoe::io::routing_log_writer<T> first(binary);
  for (const auto& record : records)
    first.add(record);
  first.close();
  hmoe::io::routing_text_writer<T> second(text);
  for (const auto& record : hmoe::io::read_routing_log<T>(binary))
    second.add(record);
  second.close();
  hmoe::io::routing_log_writer<T> third(again);
  const auto back = read_routing_text<T>(text);
  REQUIRE(back.size() == records.size());
  for (std::size_t i = 0; i < back.size(); ++i) {
    CHECK((records[i].assigned.tokens() == 0 || same_record(back[i], records[i])));
    third.add(back[i]);
  }
  third.close();
  // A record without tokens keeps no number of logits in text.
  CHECK(back[1].step == records[1].step);
  CHECK(back[1].logits.size() == 0);
}

TEST_CASE("numbers read back with the same bits, also where their digits pass through double") {
  support::random_source random(5);
  for (int i = 0; i < 20000; ++i) {
    const auto value = static_cast<float>(std::ldexp(random.real(), static_cast<int>(random.size(0, 250)) - 140));
    std::string text;
    hmoe::io::detail::append_number(text, value);
    const auto read = hmoe::io::detail::number_of<float>(hmoe::io::parse_json(text, "number"), "number");
    REQUIRE(std::memcmp(&read, &value, sizeof value) == 0);
  }
}

TEST_CASE("what is no routing is refused, with the line and the numbers") {
  const std::vector<std::pair<const char*, const char*>> cases{
      {R"({"expert_count": 4, "experts": [[0, 1])", "log, line 3"}, // truncated
      {R"({"expert_count": 4, "experts": [[4]]})", "token 0 is assigned to expert 4 of 4"},
      {R"({"expert_count": 4, "experts": [[-1]]})", "token 0: an expert is a negative whole number"},
      {R"({"expert_count": 4, "experts": [[1.5]]})", "an expert is a real number"},
      {R"({"expert_count": 4, "experts": [[1, 2, 1]]})", "token 0 is assigned to expert 1 twice"},
      {R"({"expert_count": 4, "experts": [[1e999]]})", "log, line 3"},
      {R"({"expert_count": 4, "experts": [[18446744073709551616]]})", "an expert is a real number"},
      {R"({"expert_count": 18446744073709551615, "experts": []})", "expert_count is 18446744073709551615"},
      {R"({"experts": [[1]]})", "has no member \"expert_count\""},
      {R"({"expert_count": 4})", "has no member \"experts\""},
      {R"({"expert_count": 4, "experts": [[1]], "tokens": 2})", "tokens is 2, but experts has 1 arrays"},
      {R"({"expert_count": 4, "experts": [[1]], "weights": [[1], [1]]})", "weights are of 2 tokens, experts of 1"},
      {R"({"expert_count": 4, "experts": [[1]], "weights": [[0.5, 0.5]]})", "token 0 has 1 experts and 2 weights"},
      {R"({"expert_count": 4, "experts": [[1]], "weights": [[NaN]]})", "log, line 3"},
      {R"({"expert_count": 4, "experts": [[1]], "weights": [["much"]]})", "is the text \"much\""},
      {R"({"expert_count": 4, "experts": [[1]], "weights": [[1e39]]})", "is 1e+39, which is beyond the largest float"},
      {R"({"expert_count": 4, "experts": [[1]], "valid": [2]})", "valid has the value 2, possible are 0 to 1"},
      {R"({"expert_count": 4, "experts": [[1]], "valid": [1, 1]})", "valid has 2 values for 1 tokens"},
      {R"({"expert_count": 4, "experts": [[1]], "logits": [[1]]})", "has logits, but no probabilities"},
      {R"({"expert_count": 4, "experts": [[1], [2]], "logits": [[1, 2], [1]], "probabilities": [[1, 2], [1, 2]]})",
       "logits of token 1 are 1 values, of token 0 there are 2"},
      {R"({"expert_count": 4, "experts": [[1]], "experts": [[2]]})", "log, line 3"}, // a key twice
      {R"([1, 2])", "log, line 3 is an array"},
      {"", "log, line 3"},
  };
  for (const auto& [text, words] : cases) {
    const std::string found = refusal(text);
    CHECK_MESSAGE(found.find(words) != std::string::npos, text << ": " << found);
    CHECK_MESSAGE(found.find("log, line 3") != std::string::npos, text << ": " << found);
  }
  CHECK(refusal(R"({"expert_count": 4, "experts": )" + std::string(100000, '[')).find("log, line 3") !=
        std::string::npos);
}

TEST_CASE("a file's errors name its line; empty lines count and are skipped") {
  const support::scratch_folder folder;
  const std::string path = folder.path() / "routing.jsonl";
  const std::string good = R"({"expert_count": 2, "experts": [[1]]})";
  support::set_contents(path, good + "\r\n\n" + good); // no end of the last line
  CHECK(read_routing_text<float>(path).size() == 2);
  support::set_contents(path, good + "\n\n" + good + "\n{\"expert_count\": 2, \"experts\": [[2]]}\n");
  CHECK(support::error_of([&] {
          static_cast<void>(read_routing_text<float>(path));
        }).find(path + ", line 4: token 0 is assigned to expert 2 of 2") != std::string::npos);
  support::set_contents(path, "");
  CHECK(read_routing_text<float>(path).empty());
  hmoe::io::routing_text_writer<float> writer(path);
  writer.add(from_routing_text<float>(good, "line"));
  CHECK(support::contents_of(path).empty()); // the old file until close()
  writer.close();
  CHECK(read_routing_text<float>(path).size() == 1);
}
