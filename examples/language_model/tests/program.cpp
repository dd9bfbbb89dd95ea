// SPDX-License-Identifier: MIT
// Runs the program as a user does.
#include "bytes.hpp"
#include "support.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

namespace language_model {
namespace {

struct outcome {
  int status;
  std::string output;
  std::string errors;
};

outcome call(const temporary_folder& folder, const std::string& arguments) {
  const std::string output = (folder / "stdout").string();
  const std::string errors = (folder / "stderr").string();
  const int status = std::system((LANGUAGE_MODEL_PROGRAM " " + arguments + " >" + output + " 2>" + errors).c_str());
  return {WEXITSTATUS(status), read_file(output), read_file(errors)};
}

TEST_CASE("the program from tokeniser to generated text") {
  const temporary_folder folder;
  write_file(folder / "text.txt", random_text(120'000));
  const std::string text = " --threads 2 --vocabulary 160 --text " + (folder / "text.txt").string() + " --work " +
                           (folder / "work").string();
  const std::string small =
      text + " --d-model 16 --context 32 --batch 4 --evaluation-tokens 2048 --out " + (folder / "out").string();
  const std::string variants = " --variant name=a,experts=4,sizes=uniform,total=64,loss=load-balance:0.01"
                               " --variant name=b,experts=4,total=64,loss=parameter-penalty:0.1";

  auto result = call(folder, "tokenizer" + text);
  CHECK(result.status == 0);
  CHECK(result.output.find("160 pieces") != std::string::npos);

  result = call(folder, "compare --budget 2e8 --seeds 2" + variants + small);
  CAPTURE(result.errors);
  REQUIRE(result.status == 0);
  CHECK(result.output.find("bits/byte") != std::string::npos);
  CHECK(result.output.find("±") != std::string::npos);
  CHECK(result.output.find("share of activations per expert") != std::string::npos);
  const auto results = nlohmann::json::parse(read_file(folder / "out/results.json"));
  CHECK(results.at("variants").size() == 2);
  CHECK(results.at("variants")[1].at("runs").size() == 2);
  CHECK(results.at("machine").at("threads") == 2);
  CHECK(results.at("command").get<std::string>().starts_with("language_model compare --budget"));

  const std::string model = (folder / "out/runs/b-seed1.checkpoint").string();
  result = call(folder, "generate --tokens 20 --prompt 'ka to' --checkpoint " + model);
  CHECK(result.status == 0);
  CHECK(result.output.starts_with("ka to"));
  CHECK(call(folder, "generate --tokens 20 --prompt 'ka to' --checkpoint " + model).output == result.output);

  result = call(folder, "train --budget 1e8 --variant name=c,experts=4,total=64" + small);
  CHECK(result.status == 0);
  CHECK(result.output.find("bits per byte") != std::string::npos);
  result = call(folder, "train --budget 1e8 --variant name=c,experts=4,total=64" + small);
  CHECK(result.status == 1);
  CHECK(result.errors.find("give --resume") != std::string::npos);
  CHECK(call(folder, "train --budget 1e8" + small).status == 0); // the default variant
  CHECK(call(folder, "train --resume --budget 1e8 --variant name=c,experts=4,total=64" + small).status == 0);
}

TEST_CASE("help explains, and mistakes end with a message and a status") {
  const temporary_folder folder;
  write_file(folder / "text.txt", random_text(120'000));
  const auto help = call(folder, "compare --help");
  CHECK(help.status == 0);
  for (const char* word : {"--list", "--text", "parameter-penalty:C", "arithmetic[:first:last]", "3e12"}) {
    CHECK(help.output.find(word) != std::string::npos);
  }
  const auto list = call(folder, "list");
  CHECK(list.status == 0);
  for (const char* word : {"expert-choice:FACTOR", "adaptive-l1:C", "sigmoid-gated:W", "[:mean|raw|max]"})
    CHECK(list.output.find(word) != std::string::npos);
  CHECK(call(folder, "").status != 0);
  CHECK(call(folder, "train --text /nowhere").status != 0);
  const std::string text = " --text " + (folder / "text.txt").string() + " --work " + (folder / "work").string();
  const auto refused = call(folder, "train --variant router=top-k:20" + text);
  CHECK(refused.status == 1);
  CHECK(refused.errors.find("1 to its 8 experts") != std::string::npos);
  for (const char* option :
       {"--warmup -1", "--batch 0", "--heads 0", "--learning-rate nan", "--variant router=sign-bias:2:nan"})
    CHECK(call(folder, std::string("train ") + option + text).status != 0);
  CHECK(call(folder, "compare" + text).errors.find("--list") != std::string::npos);
  write_file(folder / "noise", "not a checkpoint");
  CHECK(call(folder, "generate --temperature -1 --checkpoint " + (folder / "noise").string())
            .errors.find("a temperature of -1") != std::string::npos);
  CHECK(call(folder, "generate --checkpoint " + (folder / "noise").string()).errors.find("no checkpoint") !=
        std::string::npos);
}

} // namespace
} // namespace language_model
