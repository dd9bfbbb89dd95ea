// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/random.hpp>

#include "bytes.hpp"
#include "corpus.hpp"
#include "run_config.hpp"
#include "variant.hpp"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// A folder of its own that is gone when the test ends.
class temporary_folder {
public:
  temporary_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "language_model_test_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

private:
  std::filesystem::path path_;
};

/// What is written to std::cerr while it lives.
class captured_errors {
public:
  captured_errors() : before_(std::cerr.rdbuf(text_.rdbuf())) {}
  ~captured_errors() { std::cerr.rdbuf(before_); }
  captured_errors(const captured_errors&) = delete;
  captured_errors& operator=(const captured_errors&) = delete;

  std::string text() const { return text_.str(); }

private:
  std::ostringstream text_;
  std::streambuf* before_;
};

/// The kinds of damage that a file can suffer: cut, something behind it, bits changed at both ends and in the middle.
inline std::vector<std::string> damaged(const std::string& intact) {
  std::vector<std::string> all{"", intact.substr(0, intact.size() - 1), intact.substr(0, intact.size() / 2),
                               intact + "x", intact + "xy"};
  for (const std::size_t at : {std::size_t{0}, intact.size() / 2, intact.size() - 1}) {
    all.push_back(intact);
    all.back()[at] = static_cast<char>(all.back()[at] ^ 4);
  }
  return all;
}

/// Lines of random words of a small language: something that a tokeniser and a model can learn.
inline std::string random_text(std::size_t bytes) {
  constexpr std::array<std::string_view, 12> syllables{"ka",  "to",  "mi", "re", "lun",   "sa",
                                                       "ven", "dor", "pi", "el", "ghast", "quo"};
  std::string text;
  for (std::size_t i = 0; text.size() < bytes; ++i) {
    const double u = hmoe::uniform(hmoe::seed{7}, 0, i);
    text += syllables[static_cast<std::size_t>(u * u * 12.0)];
    const double end = hmoe::uniform(hmoe::seed{7}, 1, i);
    if (end < 0.4)
      text += end < 0.05 ? ".\n" : " ";
  }
  return text;
}

/// A corpus and a configuration so small that a step takes about a millisecond.
struct small_world {
  temporary_folder folder;
  corpus text;
  run_config config;

  small_world() {
    write_file(folder / "text.txt", random_text(120'000));
    config.shape = {.d_model = 16, .blocks = 2, .heads = 2, .context = 32, .vocabulary = 160};
    text = load_corpus(folder / "text.txt", folder / "work", {.vocabulary = config.shape.vocabulary});
    config.how.batch = 4;
    config.how.warmup_steps = 5;
    config.how.evaluation_tokens = 2048;
    config.what = parse_variant("name=small,experts=4,total=64,loss=parameter-penalty:0.1");
    config.corpus_fingerprint = text.fingerprint;
    config.budget_flops = 40.0 * 128.0 * 40'000.0;
  }
};

} // namespace language_model
