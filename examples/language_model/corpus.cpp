// SPDX-License-Identifier: MIT
#include "corpus.hpp"

#include <hmoe/core/error.hpp>
#include <hmoe/core/random.hpp>

#include "bytes.hpp"
#include "errors.hpp"
#include "tokenizer.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <string_view>
#include <system_error>

namespace language_model {
namespace {

/// Part of the name of everything kept in the work folder; a change of format or tokenisation changes it.
constexpr std::string_view format = "hmoe-corpus-1";
constexpr std::size_t shortest_text = 50'000;

std::size_t character_boundary(const std::string& text, std::size_t at) {
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U)
    ++at;
  return at;
}

/// Length of the valid UTF-8 character at `at`, or 0.
std::size_t character_length(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const std::uint32_t lead = byte(at);
  if (lead < 0x80U)
    return 1;
  const std::size_t length = lead >= 0xF0U ? 4 : lead >= 0xE0U ? 3 : 2;
  if (lead < 0xC2U || lead > 0xF4U)
    return 0;
  std::uint32_t code = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0U) != 0x80U)
      return 0;
    code = code << 6U | (byte(at + i) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800U) || (length == 4 && code < 0x10000U);
  const bool surrogate = code >= 0xD800U && code < 0xE000U;
  return overlong || surrogate || code > 0x10FFFFU ? 0 : length;
}

void require_text(const std::string& text, const std::string& file) {
  hmoe::require(text.size() >= shortest_text, file, " has ", text.size(), " bytes; training needs at least ",
                shortest_text);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = character_length(text, at);
    hmoe::require(length > 0 && text[at] != '\0', file, " is not UTF-8 text: byte ",
                  static_cast<unsigned>(static_cast<unsigned char>(text[at])), " at offset ", at);
    at += length;
  }
}

std::string bytes_of(const std::vector<token>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(token)};
}

std::vector<token> tokens_of(const std::string& bytes) {
  std::vector<token> tokens(bytes.size() / sizeof(token));
  if (!tokens.empty())
    std::memcpy(tokens.data(), bytes.data(), tokens.size() * sizeof(token));
  return tokens;
}

/// The folder is complete when its description is there, which is written last.
void save(const corpus& c, const std::filesystem::path& folder) {
  write_file(folder / "tokenizer.model", c.tokenizer);
  write_file(folder / "train.tokens", bytes_of(c.train));
  write_file(folder / "heldout.tokens", bytes_of(c.heldout));
  const auto tokens = checksum().add(c.tokenizer).add(bytes_of(c.train)).add(bytes_of(c.heldout)).value();
  const nlohmann::json description{{"format", format},
                                   {"text", c.name},
                                   {"train_bytes", c.train_bytes},
                                   {"heldout_bytes", c.heldout_bytes},
                                   {"train_tokens", c.train.size()},
                                   {"heldout_tokens", c.heldout.size()},
                                   {"checksum", to_hex(tokens)}};
  write_file(folder / "corpus.json", description.dump(2) + "\n");
}

/// The bytes of a file that an earlier run left in the folder.
std::string read_kept(const std::filesystem::path& folder, const char* name) {
  std::error_code ignored;
  hmoe::require(std::filesystem::is_regular_file(folder / name, ignored), name, " is missing");
  return read_file(folder / name);
}

/// Takes what an earlier run left in the folder. Throws hmoe::error that says what is missing or damaged.
void load(corpus& c, const std::filesystem::path& folder) {
  const auto description = nlohmann::json::parse(read_kept(folder, "corpus.json"), nullptr, false);
  hmoe::require(description.is_object(), "corpus.json is not the description of a corpus");
  const auto entry = [&](const char* key) {
    const auto found = description.find(key);
    return found == description.end() ? nlohmann::json() : *found;
  };
  const std::string pieces = read_kept(folder, "tokenizer.model");
  const std::string train = read_kept(folder, "train.tokens"), heldout = read_kept(folder, "heldout.tokens");
  const auto require_size = [&](const char* name, const std::string& bytes, const char* key) {
    const nlohmann::json tokens = entry(key);
    hmoe::require(tokens.is_number_unsigned(), "corpus.json has no number of ", key);
    hmoe::require(bytes.size() % sizeof(token) == 0 && bytes.size() / sizeof(token) == tokens.get<std::uint64_t>(),
                  name, " has ", bytes.size(), " bytes, its ", tokens.get<std::uint64_t>(), " tokens take ",
                  sizeof(token), " each");
  };
  require_size("train.tokens", train, "train_tokens");
  require_size("heldout.tokens", heldout, "heldout_tokens");
  const std::string sum = to_hex(checksum().add(pieces).add(train).add(heldout).value());
  hmoe::require(entry("checksum") == sum, "the checksum of its files is ", sum, ", corpus.json has ",
                entry("checksum").dump());
  c.tokenizer = pieces;
  c.train = tokens_of(train);
  c.heldout = tokens_of(heldout);
}

/// Whether the folder held the corpus, whole and undamaged. Says so where there is only a part of it.
bool load_if_intact(corpus& c, const std::filesystem::path& folder, const std::filesystem::path& text_file) {
  if (std::error_code ignored; !std::filesystem::exists(folder, ignored))
    return false;
  try {
    load(c, folder);
    return true;
  } catch (const hmoe::error& e) {
    std::cerr << folder.string() << " is damaged (" << reason(e) << "): it is made again from " << text_file.string()
              << "\n";
    return false;
  }
}

} // namespace

std::vector<byte_range> heldout_ranges(const std::string& text, std::size_t blocks, std::size_t block_bytes) {
  const std::size_t part = text.size() / blocks;
  const std::size_t size = std::min(block_bytes, part / 10);
  std::vector<byte_range> ranges;
  for (std::size_t b = 0; b < blocks; ++b) {
    const double place = hmoe::uniform(hmoe::seed{0}, 0, b) * static_cast<double>(part - size);
    const std::size_t first = b * part + static_cast<std::size_t>(place);
    ranges.push_back({character_boundary(text, first), character_boundary(text, first + size)});
  }
  return ranges;
}

corpus load_corpus(const std::filesystem::path& text_file, const std::filesystem::path& work_folder,
                   const corpus_options& options) {
  const std::string text = read_file(text_file);
  require_text(text, text_file.string());
  hmoe::require(options.vocabulary <= 65536, "a vocabulary of ", options.vocabulary,
                " does not fit into tokens of 16 bits: at most 65536");
  hmoe::require(options.heldout_blocks > 0, "nothing would be held out: heldout blocks is 0");

  corpus c;
  c.name = text_file.filename().string();
  c.fingerprint = checksum()
                      .add(format)
                      .add(std::to_string(options.vocabulary) + "/" + std::to_string(options.heldout_blocks) + "/" +
                           std::to_string(options.heldout_block_bytes) + "/")
                      .add(text)
                      .value();
  std::string train;
  std::string heldout;
  std::size_t end = 0;
  for (const auto& range : heldout_ranges(text, options.heldout_blocks, options.heldout_block_bytes)) {
    train.append(text, end, range.first - end);
    heldout.append(text, range.first, range.last - range.first);
    end = range.last;
  }
  train.append(text, end);
  c.train_bytes = train.size();
  c.heldout_bytes = heldout.size();

  const std::filesystem::path folder = work_folder / ("corpus-" + to_hex(c.fingerprint));
  const bool cached = load_if_intact(c, folder, text_file);
  if (!cached)
    c.tokenizer = tokenizer::train(train, options.vocabulary, options.threads);
  const tokenizer pieces(c.tokenizer);
  c.pieces = pieces.pieces();
  if (!cached) {
    c.train = pieces.encode(train, options.threads);
    c.heldout = pieces.encode(heldout, options.threads);
    save(c, folder);
  }
  return c;
}

} // namespace language_model
