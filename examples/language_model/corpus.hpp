// SPDX-License-Identifier: MIT
#pragma once

#include "token.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace language_model {

struct corpus_options {
  std::size_t vocabulary = 512;
  std::size_t heldout_blocks = 16;
  std::size_t heldout_block_bytes = std::size_t{64} << 10U; ///< less where the text is short: at most 1/10 in all
  std::size_t threads = 1;
};

/// A text cut into a part to train on and a part that is never trained on, both as tokens.
struct corpus {
  std::string name;          ///< file name of the text
  std::uint64_t fingerprint; ///< of text, split and vocabulary
  std::size_t train_bytes;
  std::size_t heldout_bytes;
  std::vector<token> train;
  std::vector<token> heldout;
  std::vector<std::string> pieces; ///< the text that each token stands for
  std::string tokenizer;           ///< serialised SentencePiece model

  double bytes_per_token() const { return static_cast<double>(train_bytes) / static_cast<double>(train.size()); }
};

/// Byte ranges [first, last) of the held-out blocks: `blocks` places drawn at random from as many equal parts of the
/// text, so that they never overlap; moved to the next UTF-8 character.
struct byte_range {
  std::size_t first;
  std::size_t last;
};
std::vector<byte_range> heldout_ranges(const std::string& text, std::size_t blocks, std::size_t block_bytes);

/// The tokenised corpus of a text file, from the work folder when it is there and intact, else made and kept there; a
/// line on std::cerr tells of a damaged one. The tokeniser is trained on the training part alone. Throws hmoe::error
/// for a text that is too short or not UTF-8.
corpus load_corpus(const std::filesystem::path& text_file, const std::filesystem::path& work_folder,
                   const corpus_options& options);

} // namespace language_model
