// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>

using hmoe::io::read_routing_log;
using hmoe::io::routing_log_record;
using hmoe::io::routing_log_writer;

namespace {

struct scratch_folder : support::scratch_folder {
  [[nodiscard]] std::filesystem::path file() const { return path() / "trace.bin"; }
};

std::string read(const std::filesystem::path& path) { return support::contents_of(path); }
void write(const std::filesystem::path& path, const std::string& bytes) { support::set_contents(path, bytes); }

template <class A, class B> bool same_bits(const A& a, const B& b) {
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0);
}

template <class T> routing_log_record<T> random_record(std::uint64_t seed, std::size_t tokens, bool with_scores) {
  support::random_source random(seed);
  routing_log_record<T> record;
  record.step = seed;
  record.layer = seed + 1;
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
    weight = static_cast<T>(random.real());
  if (with_scores) {
    record.logits = support::random_matrix<T>(random, tokens, 5);
    record.probabilities = support::random_matrix<T>(random, tokens, 5);
    for (std::size_t t = 0; t < tokens; ++t)
      record.token_ids.push_back(static_cast<hmoe::index_t>(random.size(0, 1000)));
  } else {
    record.valid.assign(tokens, 1);
    record.valid.back() = 0;
    record.assigned.set_padding(1);
  }
  return record;
}

template <class T> bool same(const routing_log_record<T>& a, const routing_log_record<T>& b) {
  return a.step == b.step && a.layer == b.layer && a.experts == b.experts && a.weights_on_input == b.weights_on_input &&
         same_bits(a.assigned.offsets(), b.assigned.offsets()) &&
         same_bits(a.assigned.experts(), b.assigned.experts()) &&
         same_bits(a.assigned.weights(), b.assigned.weights()) && a.logits.rows() == b.logits.rows() &&
         same_bits(a.logits, b.logits) && same_bits(a.probabilities, b.probabilities) && a.token_ids == b.token_ids &&
         a.valid == b.valid && a.assigned.valid_tokens() == b.assigned.valid_tokens();
}

template <class T> std::vector<routing_log_record<T>> write_three(const std::filesystem::path& path) {
  std::vector<routing_log_record<T>> records;
  records.push_back(random_record<T>(1, 9, true));
  records.push_back(random_record<T>(2, 0, true)); // no tokens
  records.push_back(random_record<T>(3, 4, false));
  // Bits, not values: a negative zero, a subnormal and a NaN must come back as they were.
  records[0].logits(0, 0) = -T(0);
  records[0].logits(0, 1) = std::numeric_limits<T>::denorm_min();
  records[0].logits(0, 2) = -std::numeric_limits<T>::quiet_NaN();
  routing_log_writer<T> writer(path);
  for (const auto& record : records)
    writer.add(record);
  writer.close();
  return records;
}

} // namespace

TEST_CASE_TEMPLATE("what was recorded comes back bit for bit", T, float, double) {
  const scratch_folder folder;
  const auto records = write_three<T>(folder.file());
  const auto back = read_routing_log<T>(folder.file());
  REQUIRE(back.size() == records.size());
  for (std::size_t r = 0; r < back.size(); ++r)
    CHECK(same(back[r], records[r]));
  CHECK(folder.entries() == 1);

  routing_log_writer<T>(folder.file()).close(); // no records: a legal file, in the place of the old one
  CHECK(read_routing_log<T>(folder.file()).empty());
}

TEST_CASE_TEMPLATE("a run recorded to a file is replayed bit for bit, weights on the input or not", Weighting,
                   hmoe::routing::raw, hmoe::routing::on_input_side<hmoe::routing::raw>) {
  const scratch_folder folder;
  support::random_source random(231);
  const hmoe::context ctx{hmoe::backends::reference{}};
  constexpr std::size_t tokens = 13, d_model = 6;
  using bank_type = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  hmoe::moe_layer layer{hmoe::expert_set{bank_type(d_model, std::vector<std::size_t>{3, 5, 8, 2})},
                        hmoe::routing::router<hmoe::routing::linear<float>, hmoe::routing::top_k<>, Weighting>(
                            d_model, 4, hmoe::routing::top_k<>{2})};
  layer.initialize(hmoe::seed{4});
  auto tape = layer.make_tape(tokens);
  std::vector<hmoe::matrix<float>> inputs, outputs;
  std::vector<std::uint8_t> mask(tokens, 1);
  mask[4] = 0;
  {
    routing_log_writer<float> writer(folder.file());
    for (std::uint64_t step = 0; step < 3; ++step) {
      inputs.push_back(support::random_matrix<float>(random, tokens, d_model));
      outputs.emplace_back(tokens, d_model);
      const std::vector<hmoe::index_t> ids(tokens, static_cast<hmoe::index_t>(step));
      hmoe::routing_inputs<float> routing_inputs;
      routing_inputs.token_ids = ids;
      routing_inputs.valid = mask;
      layer.forward(ctx, std::as_const(inputs.back()).view(), outputs.back().view(), tape, routing_inputs);
      auto record = hmoe::io::make_routing_log_record(tape, layer.size());
      record.step = step;
      writer.add(record);
    }
    writer.close();
  }
  std::size_t step = 0;
  for (auto& record : read_routing_log<float>(folder.file())) {
    CHECK(record.step == step);
    CHECK(record.valid == mask);
    CHECK(record.assigned.valid_tokens() == tokens - 1);
    CHECK(record.token_ids == std::vector<hmoe::index_t>(tokens, static_cast<hmoe::index_t>(step)));
    const std::size_t routed = record.logits.cols();
    const hmoe::moe_layer replayed{
        layer.experts(),
        hmoe::routing::replay<float>(d_model, record.experts, std::move(record.assigned), std::move(record.logits),
                                     std::move(record.probabilities), routed, record.weights_on_input)};
    hmoe::matrix<float> y(tokens, d_model);
    replayed.forward(ctx, std::as_const(inputs[step]).view(), y.view());
    CHECK(same_bits(y, outputs[step]));
    ++step;
  }
  CHECK(step == 3);
}

TEST_CASE("scores can be left out") {
  const auto record = random_record<float>(5, 3, true);
  hmoe::tape<float> tape;
  tape.trace().resize(3, 6, 0, false);
  tape.assignment() = record.assigned;
  const auto without = hmoe::io::make_routing_log_record(tape, 6, hmoe::io::keep_scores::no);
  CHECK(without.logits.size() == 0);
  CHECK(without.probabilities.size() == 0);
  CHECK(same_bits(without.assigned.weights(), record.assigned.weights()));
}

TEST_CASE("a file cut anywhere is refused") {
  const scratch_folder folder;
  (void)write_three<float>(folder.file());
  const std::string bytes = read(folder.file());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    write(folder.file(), bytes.substr(0, size));
    CHECK_THROWS_AS((void)read_routing_log<float>(folder.file()), hmoe::error);
  }
  write(folder.file(), bytes.substr(0, bytes.size() - 3));
  const std::string payload = std::to_string(bytes.size() - 56), left = std::to_string(bytes.size() - 59);
  CHECK_THROWS_WITH_AS((void)read_routing_log<float>(folder.file()),
                       doctest::Contains((left + " bytes follow the header instead of " + payload).c_str()),
                       hmoe::error);
  write(folder.file(), bytes + "x");
  CHECK_THROWS_WITH_AS((void)read_routing_log<float>(folder.file()), doctest::Contains("something behind it"),
                       hmoe::error);
}

TEST_CASE("a changed bit anywhere is noticed") {
  const scratch_folder folder;
  (void)write_three<float>(folder.file());
  const std::string bytes = read(folder.file());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    write(folder.file(), changed);
    CHECK_THROWS_AS((void)read_routing_log<float>(folder.file()), hmoe::error);
  }
}

TEST_CASE("files of another kind, version, byte order or type are told apart") {
  const scratch_folder folder;
  (void)write_three<float>(folder.file());
  const std::string bytes = read(folder.file());
  const auto refuse = [&](const std::string& content, const char* words) {
    write(folder.file(), content);
    CHECK_THROWS_WITH_AS((void)read_routing_log<float>(folder.file()), doctest::Contains(words), hmoe::error);
  };
  refuse(std::string(500, 'x'), "is not a routing log");
  refuse("short", "has 5 bytes");
  std::string other = bytes;
  std::swap(other[8], other[11]);
  std::swap(other[9], other[10]);
  refuse(other, "another byte order");
  other = bytes;
  other[12] = 7;
  refuse(other, "of version 7, this library reads versions 1 to 3");
  write(folder.file(), bytes);
  CHECK_THROWS_WITH_AS((void)read_routing_log<double>(folder.file()), doctest::Contains("read it as float"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS((void)read_routing_log<float>(folder.path() / "none"), doctest::Contains("none"), hmoe::error);
  CHECK_THROWS_AS((void)read_routing_log<float>(folder.path()), hmoe::error);
}

namespace {
/// Writes bytes of a file with the checksums that belong to them.
void write_with_right_checksums(const std::filesystem::path& path, std::string bytes) {
  const auto sum_of = [&](std::size_t first, std::size_t count) {
    hmoe::io::checksum sum;
    sum.add(std::as_bytes(std::span(bytes.data() + first, count)));
    return sum.value();
  };
  const std::uint64_t payload = sum_of(56, bytes.size() - 56);
  std::memcpy(bytes.data() + 40, &payload, 8);
  const std::uint64_t header = sum_of(0, 48);
  std::memcpy(bytes.data() + 48, &header, 8);
  write(path, bytes);
}
} // namespace

TEST_CASE_TEMPLATE("older files have no mask, and in version 1 no flag for weights on the input", T, float, double) {
  for (const std::size_t version : {1U, 2U}) {
    const scratch_folder folder;
    auto records = write_three<T>(folder.file());
    std::string bytes = read(folder.file());
    bytes[12] = static_cast<char>(version);
    const std::size_t numbers = 6 + version; // of nine, the flag is the eighth and the size of the mask the last
    std::size_t at = 56;
    for (auto& record : records) {
      bytes.erase(at + 8 * numbers, 8 * (9 - numbers));
      at += 8 * numbers +
            sizeof(hmoe::index_t) * (record.assigned.tokens() + 1 + record.assigned.size() + record.token_ids.size()) +
            sizeof(T) * (record.assigned.size() + record.logits.size() + record.probabilities.size());
      bytes.erase(at, record.valid.size());
      record.valid.clear();
      record.assigned.set_padding(0);
      if (version == 1)
        record.weights_on_input = false;
    }
    REQUIRE(at == bytes.size());
    const std::uint64_t payload_bytes = bytes.size() - 56;
    std::memcpy(bytes.data() + 32, &payload_bytes, 8);
    write_with_right_checksums(folder.file(), bytes);
    const auto back = read_routing_log<T>(folder.file());
    REQUIRE(back.size() == records.size());
    for (std::size_t r = 0; r < back.size(); ++r)
      CHECK(same(back[r], records[r]));
  }
}

TEST_CASE("sizes that a well-formed file made up are refused before memory is taken") {
  const scratch_folder folder;
  (void)write_three<float>(folder.file());
  const std::string bytes = read(folder.file());
  // The first record's nine numbers follow the 56 bytes of the header.
  for (std::size_t field = 2; field < 9; ++field)
    for (const std::uint64_t made_up :
         {std::uint64_t{1} << 62U, ~std::uint64_t{0}, std::uint64_t{1} << 20U, std::uint64_t{3}}) {
      std::string changed = bytes;
      std::memcpy(changed.data() + 56 + 8 * field, &made_up, 8);
      write_with_right_checksums(folder.file(), changed);
      if (field == 2 && made_up > 6) // more experts than the assignment names are no contradiction
        CHECK_NOTHROW((void)read_routing_log<float>(folder.file()));
      else
        CHECK_THROWS_AS((void)read_routing_log<float>(folder.file()), hmoe::error);
    }
  // Entries and the last offset agree, on more than there can be: its nine tokens' offsets follow the sizes.
  const std::uint64_t entries = 0xfffffff0U;
  const auto last_offset = static_cast<hmoe::index_t>(entries);
  std::string changed = bytes;
  std::memcpy(changed.data() + 56 + 8 * 4, &entries, 8);
  std::memcpy(changed.data() + 56 + 8 * 9 + 4 * 9, &last_offset, 4);
  write_with_right_checksums(folder.file(), changed);
  CHECK_THROWS_WITH_AS((void)read_routing_log<float>(folder.file()),
                       doctest::Contains("4294967280 values of 8 bytes follow"), hmoe::error);
}

TEST_CASE("a writer that is not closed leaves nothing, and an older file untouched") {
  const scratch_folder folder;
  {
    routing_log_writer<float> writer(folder.file());
    writer.add(random_record<float>(1, 4, true));
    CHECK(folder.entries() == 1); // the partial one
    CHECK_FALSE(std::filesystem::exists(folder.file()));
  }
  CHECK(folder.entries() == 0);
  write(folder.file(), "older");
  {
    routing_log_writer<float> writer(folder.file());
    writer.add(random_record<float>(1, 4, true));
  }
  CHECK(read(folder.file()) == "older");
  CHECK(folder.entries() == 1);
}

TEST_CASE("what cannot be written is told") {
  const scratch_folder folder;
  CHECK_THROWS_WITH_AS(routing_log_writer<float>(folder.path() / "no" / "trace.bin"), doctest::Contains("cannot write"),
                       hmoe::error);
  routing_log_writer<float> writer(folder.file());
  auto few_experts = random_record<float>(1, 9, true);
  few_experts.experts = 2;
  CHECK_THROWS_AS(writer.add(few_experts), hmoe::error);
  auto few_scores = random_record<float>(1, 9, true);
  few_scores.logits = hmoe::matrix<float>(8, 5);
  CHECK_THROWS_WITH_AS(writer.add(few_scores), doctest::Contains("record both or none"), hmoe::error);
  few_scores.probabilities = hmoe::matrix<float>(8, 5);
  CHECK_THROWS_WITH_AS(writer.add(few_scores), doctest::Contains("8 tokens, the assignment of 9"), hmoe::error);
  auto few_ids = random_record<float>(1, 9, true);
  few_ids.token_ids.pop_back();
  CHECK_THROWS_WITH_AS(writer.add(few_ids), doctest::Contains("8 token ids"), hmoe::error);
  writer.close();
  CHECK(read_routing_log<float>(folder.file()).empty()); // nothing of them was written
}

TEST_CASE("after close() the file is complete, and says so") {
  const scratch_folder folder;
  routing_log_writer<float> writer(folder.file());
  writer.add(random_record<float>(1, 4, true));
  writer.close();
  const std::string complete = read(folder.file());
  CHECK_THROWS_WITH_AS(writer.add(random_record<float>(2, 4, true)),
                       doctest::Contains("nothing can be added after close()"), hmoe::error);
  CHECK_THROWS_WITH_AS(writer.close(), doctest::Contains("after close()"), hmoe::error);
  CHECK(read(folder.file()) == complete);
}

TEST_CASE("two writers of one path do not mix: each file is whole, and an abandoned writer takes nothing with it") {
  const scratch_folder folder;
  const auto first = random_record<float>(1, 200, true), second = random_record<float>(2, 100, true);
  routing_log_writer<float> a(folder.file()), b(folder.file());
  a.add(first);
  b.add(second);
  {
    routing_log_writer<float> abandoned(folder.file());
  }
  a.close();
  CHECK(same(read_routing_log<float>(folder.file()).at(0), first));
  b.close();
  CHECK(same(read_routing_log<float>(folder.file()).at(0), second));
  CHECK(folder.entries() == 1);
}
