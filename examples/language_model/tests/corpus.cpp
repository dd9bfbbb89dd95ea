// SPDX-License-Identifier: MIT
#include "corpus.hpp"

#include <hmoe/core/error.hpp>

#include "batches.hpp"
#include "support.hpp"
#include "tokenizer.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

namespace language_model {
namespace {

TEST_CASE("held-out blocks are apart, in order, and as long as asked for") {
  const std::string text(3'000'000, 'a');
  const auto ranges = heldout_ranges(text, 16, 10'000);
  CHECK(ranges.size() == 16);
  std::size_t end = 0;
  for (const auto& range : ranges) {
    CHECK(range.first >= end);
    CHECK(range.last - range.first == 10'000);
    end = range.last;
  }
  CHECK(end <= text.size());
  const auto shortened = heldout_ranges(text.substr(0, 160'000), 16, 10'000);
  CHECK(shortened[0].last - shortened[0].first == 1'000);
}

TEST_CASE("encoding loses nothing: ASCII, other characters, spaces and line feeds") {
  const std::string ascii = random_text(60'000);
  const tokenizer plain(tokenizer::train(ascii, 160, 1));
  for (const std::string& text :
       {ascii, std::string(" two  spaces\n\n\nthree feeds \n"), std::string("{never} seen~!")}) {
    CHECK(plain.decode(plain.encode(text)) == text);
    CHECK(plain.encode(text, 2) == plain.encode(text));
  }
  const tokenizer bytes(tokenizer::train(ascii + "naïve Übermut, 日本\n", 420, 1));
  const std::string foreign = "naïve Ωmega\n日本語 and ascii";
  CHECK(bytes.decode(bytes.encode(foreign)) == foreign);
}

TEST_CASE("chunks end with a line, before a space, or between characters") {
  CHECK(next_chunk("one\ntwo") == 4);
  CHECK(next_chunk("short") == 5);
  const std::string words = std::string(1500, 'a') + " " + std::string(3000, 'b');
  CHECK(next_chunk(words) == 1500);
  std::string characters;
  for (int i = 0; i < 2000; ++i)
    characters += "日";
  CHECK(next_chunk(characters) % 3 == 0);
}

TEST_CASE("a corpus is made once, kept, and made again when what was kept is damaged") {
  const small_world world;
  const corpus& c = world.text;
  CHECK(c.train_bytes + c.heldout_bytes == std::filesystem::file_size(world.folder / "text.txt"));
  std::size_t bytes = 0;
  for (const token t : c.heldout)
    bytes += c.pieces[t].size();
  CHECK(bytes == c.heldout_bytes);

  const corpus_options options{.vocabulary = 160};
  const auto again = [&] { return load_corpus(world.folder / "text.txt", world.folder / "work", options); };
  CHECK(again().train == c.train);
  const auto kept = world.folder / "work" / ("corpus-" + to_hex(c.fingerprint)) / "train.tokens";
  write_file(kept, "damaged!");
  const captured_errors errors;
  const corpus repaired = again();
  CHECK(repaired.train == c.train);
  CHECK(repaired.tokenizer == c.tokenizer);
}

TEST_CASE("whatever happens to a kept corpus, it is noticed, said, and mended from the text") {
  const small_world world;
  const corpus_options options{.vocabulary = 160};
  const auto folder = world.folder / "work" / ("corpus-" + to_hex(world.text.fingerprint));
  const auto mended = [&] {
    const captured_errors errors;
    const corpus again = load_corpus(world.folder / "text.txt", world.folder / "work", options);
    CHECK(again.train == world.text.train);
    CHECK(again.heldout == world.text.heldout);
    CHECK(again.tokenizer == world.text.tokenizer);
    CHECK(again.pieces == world.text.pieces);
    return errors.text();
  };
  for (const char* name : {"train.tokens", "heldout.tokens", "tokenizer.model"}) {
    const std::string intact = read_file(folder / name);
    for (const auto& contents : damaged(intact)) {
      write_file(folder / name, contents);
      const std::string said = mended();
      CHECK(said.find(folder.string() + " is damaged (") == 0);
      CHECK(said.find("it is made again from " + (world.folder / "text.txt").string()) != std::string::npos);
      CHECK(read_file(folder / name) == intact);
    }
    std::filesystem::remove(folder / name);
    CHECK(mended().find(std::string(name) + " is missing") != std::string::npos);
  }
  CHECK(mended().empty());

  const auto description = nlohmann::json::parse(read_file(folder / "corpus.json"));
  std::vector<std::string> descriptions{"", "{", "[]", "null", "\"text\"", "{}", "\xFF"};
  for (const char* key : {"checksum", "train_tokens", "heldout_tokens"})
    for (const nlohmann::json& value : {nlohmann::json(), nlohmann::json(5), nlohmann::json(-1), nlohmann::json("5"),
                                        nlohmann::json(1.5), nlohmann::json::array(), nlohmann::json::object()}) {
      auto changed = description;
      changed[key] = value;
      descriptions.push_back(changed.dump());
      changed.erase(key);
      descriptions.push_back(changed.dump());
    }
  for (const auto& contents : descriptions) {
    CAPTURE(contents);
    write_file(folder / "corpus.json", contents);
    CHECK(mended().find(" is damaged (") != std::string::npos);
    CHECK(nlohmann::json::parse(read_file(folder / "corpus.json")) == description);
  }
  std::filesystem::remove(folder / "corpus.json");
  CHECK(mended().find("corpus.json is missing") != std::string::npos);
  CHECK(mended().empty());

  std::filesystem::remove(folder / "train.tokens");
  std::filesystem::create_directory(folder / "train.tokens");
  CHECK_THROWS_WITH_AS(load_corpus(world.folder / "text.txt", world.folder / "work", options),
                       doctest::Contains("it is a folder"), hmoe::error);
}

TEST_CASE("a vocabulary that does not suit the text is refused with the sizes that do") {
  const temporary_folder folder;
  const auto refused = [&](const std::string& contents, std::size_t vocabulary, const char* why) {
    write_file(folder / "text", contents);
    std::string message;
    try {
      (void)load_corpus(folder / "text", folder / "work", {.vocabulary = vocabulary});
    } catch (const hmoe::error& e) {
      message = e.what();
    }
    CHECK(message.find(why) != std::string::npos);
    CHECK(message.find(".cc") == std::string::npos);
  };
  std::string few, many;
  for (int i = 0; i < 20000; ++i) {
    few += "ab ab ba\n";
    many += {static_cast<char>(0xE4 + i % 5), static_cast<char>(0x80 + i / 64 % 64), static_cast<char>(0x80 + i % 64),
             i % 8 == 0 ? '\n' : ' '};
  }
  refused(few, 512, "too large for this text: its words give 194 tokens. Give --vocabulary 194 or less");
  refused(few, 50, "too small for this text: its characters alone take 97 tokens. Give --vocabulary 97 or more");
  refused(many, 512, "too small for this text: its characters and the 256 bytes for rare ones alone take");
  CHECK_THROWS_WITH_AS(tokenizer("no tokeniser"), doctest::Contains("this is no tokeniser"), hmoe::error);
}

TEST_CASE("texts that cannot be learnt are refused with the reason") {
  const temporary_folder folder;
  const auto refused = [&](const std::string& contents, const char* why) {
    write_file(folder / "text", contents);
    CHECK_THROWS_WITH_AS(load_corpus(folder / "text", folder / "work", {}), doctest::Contains(why), hmoe::error);
  };
  refused("short", "has 5 bytes");
  refused(random_text(60'000) + "\xE9", "not UTF-8 text: byte 233 at offset");
  refused(random_text(60'000) + std::string(1, '\0'), "byte 0 at offset");
  CHECK_THROWS_WITH_AS(load_corpus(folder / "nothing", folder / "work", {}), doctest::Contains("cannot read"),
                       hmoe::error);
}

TEST_CASE("training batches are a function of seed and step, and targets follow inputs") {
  std::vector<token> text(5000);
  std::iota(text.begin(), text.end(), token{0});
  const batch b = training_batch(text, 4, 16, hmoe::seed{1}, 10);
  CHECK(b.inputs.size() == 64);
  for (std::size_t i = 0; i < 64; ++i)
    CHECK(b.targets[i] == b.inputs[i] + 1);
  CHECK(training_batch(text, 4, 16, hmoe::seed{1}, 10).inputs == b.inputs);
  CHECK(training_batch(text, 4, 16, hmoe::seed{1}, 11).inputs != b.inputs);
  CHECK(training_batch(text, 4, 16, hmoe::seed{2}, 10).inputs != b.inputs);
}

TEST_CASE("evaluation windows fit, do not overlap, and come in whole batches") {
  const auto windows = evaluation_windows(10'001, 100, 8, 5'000);
  CHECK(windows.size() == 48);
  for (std::size_t i = 1; i < windows.size(); ++i)
    CHECK(windows[i] >= windows[i - 1] + 100);
  CHECK(windows.back() + 101 <= 10'001);
  CHECK(evaluation_windows(2'000, 100, 8, 5'000).size() == 16);
  CHECK_THROWS_WITH_AS(evaluation_windows(500, 100, 8, 5'000), doctest::Contains("500 held-out tokens"), hmoe::error);
}

} // namespace
} // namespace language_model
