// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace language_model {

/// What a trained model is asked to write.
struct text_order {
  std::filesystem::path checkpoint;
  std::filesystem::path tokenizer; ///< empty: tokenizer.model beside the checkpoint
  std::string prompt = "The ";
  std::size_t tokens = 200;
  double temperature = 0.8; ///< 0 takes the likeliest token each time
  std::uint64_t seed = 1;
};

/// The prompt and what the model goes on with. Throws hmoe::error with the option to change.
std::string write_text(const text_order& order);

} // namespace language_model
