// SPDX-License-Identifier: MIT
#pragma once

#include "corpus.hpp"

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace language_model {

/// Byte-pair encoding by SentencePiece without any normalisation: decode(encode(text)) is text again for every valid
/// UTF-8 text, but for one character (U+2581, SentencePiece's mark for a space).
class tokenizer {
public:
  /// Throws hmoe::error for bytes that are no SentencePiece model.
  explicit tokenizer(const std::string& serialized_model);
  tokenizer(tokenizer&&) noexcept;
  tokenizer& operator=(tokenizer&&) noexcept;
  ~tokenizer();

  /// Learns the pieces from a text. An ASCII text covers printable ASCII with pieces of one character; a text with
  /// other characters takes the 256 byte pieces, so that nothing is unknown. Throws hmoe::error, with the sizes that
  /// are possible, for a vocabulary that does not suit the text.
  static std::string train(std::string_view text, std::size_t vocabulary, std::size_t threads);

  /// Works through the text in chunks that end with a line (see next_chunk), shared among the threads.
  std::vector<token> encode(std::string_view text, std::size_t threads = 1) const;
  std::string decode(const std::vector<token>& tokens) const;

  /// The text of every token: as many bytes as it stands for.
  std::vector<std::string> pieces() const;

private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

/// Length of the text's first chunk: a few KiB that end after a line feed, else before a space, else between
/// characters.
std::size_t next_chunk(std::string_view text);

} // namespace language_model
