// SPDX-License-Identifier: MIT
#include "write_text.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "checkpoint.hpp"
#include "generation.hpp"
#include "run_config.hpp"
#include "tokenizer.hpp"
#include "trainer.hpp"

#include <cmath>

namespace language_model {

std::string write_text(const text_order& o) {
  hmoe::require(std::isfinite(o.temperature) && o.temperature >= 0, "a temperature of ", o.temperature,
                ": it must be finite and not below 0");
  const checkpoint saved = load_checkpoint(o.checkpoint);
  run_config config = run_config_from_json(saved.config);
  validate(config);
  config.how.batch = 1;
  require_memory(config);
  const std::filesystem::path beside = o.checkpoint.parent_path() / "tokenizer.model";
  const std::filesystem::path file = o.tokenizer.empty() ? beside : o.tokenizer;
  const std::string serialized = read_file(file);
  const auto sum = saved.state.find("tokenizer"); // older checkpoints have none
  hmoe::require(sum == saved.state.end() || *sum == to_hex(checksum().add(serialized).value()), file.string(),
                " is damaged, or not the tokeniser that the model was trained with: give that one as --tokenizer "
                "(tokenizer.model in the folder corpus-… of the training's --work)");
  const tokenizer pieces(serialized);
  hmoe::require(pieces.pieces().size() == config.shape.vocabulary, "the tokeniser has ", pieces.pieces().size(),
                " pieces, the model ", config.shape.vocabulary, ": give the one it was trained with as --tokenizer");
  decoder<float> model = make_generator(config);
  load_model(saved, model);
  const auto prompt = pieces.encode(o.prompt);
  hmoe::require(!prompt.empty(), "generate needs a --prompt of at least one character");
  hmoe::require(pieces.decode(prompt) == o.prompt,
                "the prompt has characters that the model's tokeniser does not know: it learnt those of its text");
  return pieces.decode(generate(model, prompt, o.tokens, o.temperature, hmoe::seed{o.seed}));
}

} // namespace language_model
