// SPDX-License-Identifier: MIT
// Runs the program as a user does.
#include "bytes.hpp"
#include "support.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
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

TEST_CASE("numbers that cannot work end with a sentence that names the option, before anything is made") {
  const temporary_folder folder;
  write_file(folder / "text.txt", random_text(120'000));
  const std::string text = " --text " + (folder / "text.txt").string() + " --work " + (folder / "work").string() +
                           " --out " + (folder / "out").string();
  const auto refused = [&](const std::string& arguments, const char* word) {
    CAPTURE(arguments);
    const auto result = call(folder, arguments + text);
    CAPTURE(result.errors);
    CHECK(result.status != 0);
    CHECK(result.status < 128);
    CHECK(result.errors.find(word) != std::string::npos);
    for (const char* foreign : {"hmoe:", "std::", "bad_alloc", ".cc", "json", "filesystem", "00000000000000000000"})
      CHECK(result.errors.find(foreign) == std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "work"));
    CHECK_FALSE(std::filesystem::exists(folder / "out"));
  };
  for (const char* option : {"--d-model", "--blocks", "--heads", "--context", "--batch"})
    for (const char* value : {"1000000000000", "18446744073709551615", "99999999999999999999", "0", "-3", "many"})
      refused(std::string("train ") + option + " " + value, option);
  for (const char* option :
       {"--learning-rate", "--beta1", "--beta2", "--final-rate", "--gradient-norm", "--budget", "--weight-decay"})
    for (const char* value : {"1e300", "-1", "nan", "many"})
      if (std::string(option) != "--gradient-norm" || std::string(value) != "1e300")
        refused(std::string("train ") + option + " " + value, option);
  for (const char* option : {"--threads", "--vocabulary", "--evaluation-tokens"})
    for (const char* value : {"0", "-1", "99999999999999999999"})
      refused(std::string("train ") + option + " " + value, option);
  refused("compare --variant name=a --seeds 1000000000000", "--seeds");
  refused("compare --variant name=a --seeds 2 --seed 18446744073709551615", "--seed");
  const auto variant_refused = [&](const std::string& variant, const char* word) {
    refused("train --variant " + variant, word);
    refused("compare --variant " + variant, word);
  };
  variant_refused("experts=100000000000", "experts=100000000000");
  variant_refused("experts=0", "experts=0");
  variant_refused("total=18446744073709551615", "total=18446744073709551615");
  variant_refused("total=3", "total=3");
  variant_refused("total=1000000000", "total in the variant");
  variant_refused("sizes=list:99999999999/1", "99999999999");
  variant_refused("sizes=arithmetic:1e300:-1e300", "sizes=arithmetic:1e300:-1e300");
  variant_refused("sizes=geometric:1e300", "sizes=geometric:1e300");
  variant_refused("sizes=hybrid,experts=7", "experts=7");
  variant_refused("loss=z:1e300", "loss=z");
  variant_refused("shared=always-on:18446744073709551615", "18446744073709551615");
  variant_refused("name=" + std::string(300, 'n'), "name");
}

TEST_CASE("files that an earlier call left damaged: the cache is mended with a line, a tokeniser is refused") {
  const temporary_folder folder;
  write_file(folder / "text.txt", random_text(120'000));
  const std::string train =
      "train --budget 2e7 --variant name=c,experts=4,total=64 --threads 1 --vocabulary 160 --text " +
      (folder / "text.txt").string() + " --work " + (folder / "work").string() +
      " --d-model 16 --context 32 --batch 4 --evaluation-tokens 2048 --resume --out " + (folder / "out").string();
  REQUIRE(call(folder, train).status == 0);
  std::filesystem::remove_all(folder / "out");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "work"))
    if (entry.path().filename() == "train.tokens")
      write_file(entry.path(), read_file(entry.path()) + "x");
  const auto mended = call(folder, train);
  CHECK(mended.status == 0);
  CHECK(mended.errors.find("is damaged (train.tokens has ") != std::string::npos);

  const std::string generate = "generate --tokens 5 --checkpoint " + (folder / "out/c-seed1.checkpoint").string();
  CHECK(call(folder, generate + " --prompt 'ka to'").status == 0);
  const std::string model = read_file(folder / "out/tokenizer.model");
  for (const auto& contents : damaged(model)) {
    write_file(folder / "out/tokenizer.model", contents);
    const auto result = call(folder, generate + " --prompt 'ka to'");
    CHECK(result.status == 1);
    CHECK(result.errors.find("is damaged, or not the tokeniser that the model was trained with") != std::string::npos);
  }
  write_file(folder / "out/tokenizer.model", model);
  CHECK(
      call(folder, generate + " --prompt 'Ωmega'").errors.find("characters that the model's tokeniser does not know") !=
      std::string::npos);
}

} // namespace
} // namespace language_model
