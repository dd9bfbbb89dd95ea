// SPDX-License-Identifier: MIT
#include "tokenizer.hpp"

#include <hmoe/core/error.hpp>

#include "parallel.hpp"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>
#include <unordered_map>

namespace language_model {
namespace {

constexpr std::size_t chunk_bytes = 2048;
/// SentencePiece counts word frequencies; more text than this does not change the pieces noticeably.
constexpr std::size_t training_bytes = std::size_t{8} << 20U;
constexpr std::string_view space_mark = "▁"; // U+2581

/// The first whole number behind `words` in a text, or nothing.
std::optional<std::size_t> number_behind(const std::string& text, std::string_view words) {
  const std::size_t found = text.find(words);
  std::size_t number = 0;
  if (found == std::string::npos)
    return std::nullopt;
  const char* begin = text.data() + found + words.size();
  if (std::from_chars(begin, text.data() + text.size(), number).ec != std::errc{})
    return std::nullopt;
  return number;
}

/// What SentencePiece's message about a vocabulary means for who chose the text and the vocabulary.
std::string explain(const std::string& message, std::size_t vocabulary, bool ascii) {
  if (const auto least = number_behind(message, std::to_string(vocabulary) + " vs "))
    return "a vocabulary of " + std::to_string(vocabulary) + " is too small for this text: its characters" +
           (ascii ? "" : " and the 256 bytes for rare ones") + " alone take " + std::to_string(*least) +
           " tokens. Give --vocabulary " + std::to_string(*least) +
           " or more, or a text with fewer different characters";
  if (const auto most = number_behind(message, "value <= "))
    return "a vocabulary of " + std::to_string(vocabulary) + " is too large for this text: its words give " +
           std::to_string(*most) + " tokens. Give --vocabulary " + std::to_string(*most) +
           " or less, or a text with more different words";
  return "no tokeniser with a vocabulary of " + std::to_string(vocabulary) +
         " could be made from this text. Give another --vocabulary, or another text";
}

/// Every printable ASCII character on its own: the trainer makes a piece of each character that it has seen.
std::string printable_characters() {
  std::string text;
  for (char c = '!'; c <= '~'; ++c)
    text += {c, ' '};
  return text;
}

/// Those characters, then chunks spread evenly over the text; line feeds are a token of their own and left out.
class chunk_iterator final : public sentencepiece::SentenceIterator {
public:
  explicit chunk_iterator(std::string_view text)
      : text_(text), stride_(std::max<std::size_t>(1, text.size() / training_bytes)) {}
  bool done() const override { return chunk_.empty(); }
  const std::string& value() const override { return chunk_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    do {
      chunk_.clear();
      for (std::size_t skipped = 0; skipped < stride_ && !text_.empty(); ++skipped) {
        const std::size_t size = next_chunk(text_);
        chunk_ = text_.substr(0, size);
        text_.remove_prefix(size);
      }
      std::erase(chunk_, '\n');
    } while (chunk_.empty() && !text_.empty());
  }

private:
  std::string_view text_;
  std::size_t stride_;
  std::string chunk_ = printable_characters();
};

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

std::string piece_text(const sentencepiece::SentencePieceProcessor& processor, int id) {
  if (processor.IsByte(id)) { // "<0xHH>"
    return {static_cast<char>(std::stoi(processor.IdToPiece(id).substr(3, 2), nullptr, 16))};
  }
  const std::string& piece = processor.IdToPiece(id);
  std::string text;
  for (std::size_t at = 0; at < piece.size();) {
    const bool space = piece.compare(at, space_mark.size(), space_mark) == 0;
    text += space ? ' ' : piece[at];
    at += space ? space_mark.size() : 1;
  }
  return text;
}

} // namespace

std::size_t next_chunk(std::string_view text) {
  const auto window = text.substr(0, chunk_bytes);
  if (const auto feed = window.find('\n'); feed != std::string_view::npos)
    return feed + 1;
  if (text.size() <= chunk_bytes)
    return text.size();
  if (const auto space = window.rfind(' '); space != std::string_view::npos && space > 0)
    return space;
  std::size_t size = chunk_bytes;
  while (size > 1 && is_continuation(text[size]))
    --size;
  return size;
}

tokenizer::tokenizer(const std::string& serialized_model)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  hmoe::require(processor_->LoadFromSerializedProto(serialized_model).ok() && processor_->GetPieceSize() > 0 &&
                    processor_->GetPieceSize() <= 65536,
                "this is no tokeniser, or it is damaged: ", serialized_model.size(),
                " bytes that SentencePiece cannot read");
}

tokenizer::tokenizer(tokenizer&&) noexcept = default;
tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;
tokenizer::~tokenizer() = default;

std::string tokenizer::train(std::string_view text, std::size_t vocabulary, std::size_t threads) {
  const bool ascii = std::ranges::all_of(text, [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); });
  const std::unordered_map<std::string, std::string> options{
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocabulary)},
      {"character_coverage", ascii ? "1.0" : "0.9995"},
      {"byte_fallback", ascii ? "false" : "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"user_defined_symbols", "\n"},
      {"bos_id", "-1"},
      {"eos_id", "-1"},
      {"num_threads", std::to_string(threads)},
      {"minloglevel", "2"},
  };
  chunk_iterator chunks(text);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &chunks, &model);
  if (!status.ok())
    throw hmoe::error(explain(status.ToString(), vocabulary, ascii));
  return model;
}

std::vector<token> tokenizer::encode(std::string_view text, std::size_t threads) const {
  constexpr std::size_t shard_bytes = std::size_t{256} << 10U;
  std::vector<std::string_view> shards;
  while (!text.empty()) {
    std::size_t size = 0;
    while (size < shard_bytes && size < text.size())
      size += next_chunk(text.substr(size));
    shards.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  std::vector<std::vector<token>> encoded(shards.size());
  std::vector<std::string> failures(shards.size());
  parallel_for(threads, shards.size(), [&](std::size_t i) {
    std::vector<int> ids;
    for (auto rest = shards[i]; !rest.empty();) {
      const std::size_t size = next_chunk(rest);
      if (const auto status = processor_->Encode(rest.substr(0, size), &ids); !status.ok()) {
        failures[i] = status.ToString();
        return;
      }
      for (const int id : ids)
        encoded[i].push_back(static_cast<token>(id));
      rest.remove_prefix(size);
    }
  });
  std::vector<token> tokens;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    hmoe::require(failures[i].empty(), "encoding the text failed: ", failures[i]);
    tokens.insert(tokens.end(), encoded[i].begin(), encoded[i].end());
  }
  return tokens;
}

std::string tokenizer::decode(const std::vector<token>& tokens) const {
  const auto texts = pieces();
  std::string text;
  for (const token t : tokens) {
    hmoe::require(t < texts.size(), "token ", t, " is outside the vocabulary of ", texts.size());
    text += texts[t];
  }
  return text;
}

std::vector<std::string> tokenizer::pieces() const {
  std::vector<std::string> texts;
  texts.reserve(static_cast<std::size_t>(processor_->GetPieceSize()));
  for (int id = 0; id < processor_->GetPieceSize(); ++id)
    texts.push_back(piece_text(*processor_, id));
  return texts;
}

} // namespace language_model
