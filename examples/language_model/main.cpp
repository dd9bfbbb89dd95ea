// SPDX-License-Identifier: MIT
// Trains small language models whose feed-forward layers are Mixtures of Experts of unequal width, and compares them.

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "comparison.hpp"
#include "corpus.hpp"
#include "errors.hpp"
#include "interrupt.hpp"
#include "option_checks.hpp"
#include "policies.hpp"
#include "process_group.hpp"
#include "pruning_comparison.hpp"
#include "run.hpp"
#include "table.hpp"
#include "waiting.hpp"
#include "write_text.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace language_model {
namespace {

constexpr int interrupted_status = 130; // what shells report after Ctrl-C

std::string policy_help() {
  return "Routers; values in brackets may be left out:\n" + describe(router_kinds()) + "\nShared experts:\n" +
         describe(shared_kinds()) + "\nLosses; C is the coefficient, the first option is what is taken without one:\n" +
         describe(loss_kinds());
}

constexpr const char* variant_help =
    "A variant is a comma-separated list of key=value:\n"
    "  name=…      part of file names\n"
    "  title=…     shown in tables and figures\n"
    "  experts=8   number of experts\n"
    "  sizes=…     uniform | arithmetic[:first:last] | geometric[:ratio] | hybrid | list:w/w/… | dense\n"
    "  total=1024  sum of the widths (not for a list)\n"
    "  router=…    top-k:K | top-p:P | … (see below)\n"
    "  shared=…    none | always-on:W/W/… | sigmoid-gated:W/W/…: experts that every token gets besides\n"
    "  loss=…      none | load-balance:C | parameter-penalty:C | … (see below); may be repeated\n"
    "  control-of=NAME  marks it as the control of another variant of the comparison\n"
    "Example: name=hmoe,sizes=arithmetic:9:23,router=top-k:2,loss=parameter-penalty:0.1\n\n";

struct options {
  std::string text;
  std::string work = "build/language_model";
  std::string out = "build/language_model/runs";
  std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
  run_config base;
  bool expert_parallel = false;

  std::string variant = "name=hmoe,loss=parameter-penalty:0.1";
  bool resume = false;

  std::vector<std::string> variants;
  std::string list;
  std::size_t seeds = 0;

  std::vector<std::string> models;
  pruning_comparison pruning;

  text_order order;
};

corpus open_corpus(const options& o) {
  corpus_options wanted;
  wanted.vocabulary = o.base.shape.vocabulary;
  wanted.threads = o.threads;
  return load_corpus(o.text, o.work, wanted);
}

/// The processes that --expert-parallel asks for, ready to read the text; nothing without it.
std::unique_ptr<process_group> start(options& o, bool threads_given) {
  if (!o.expert_parallel)
    return nullptr;
  auto group = start_processes();
  if (!threads_given) // they share one machine, as far as is known
    o.threads = std::max<std::size_t>(1, o.threads / group->size());
  return group;
}

/// f(text), by all processes; the first one makes the tokens, the others find them. Ends them all when one fails.
template <class F> int with_corpus(const options& o, const process_group* group, const F& f) {
  if (group == nullptr)
    return f(open_corpus(o));
  try {
    std::array<std::uint64_t, 1> ready{};
    std::optional<corpus> text;
    if (group->rank() == 0)
      text = open_corpus(o);
    group->sum(ready);
    if (!text)
      text = open_corpus(o);
    return f(*text);
  } catch (const std::exception& e) {
    std::cerr << "error: process " << group->rank() << " of " << group->size() << ": " << reason(e) << "\n";
    group->abort();
    return 1;
  }
}

int train(options& o, const corpus& text, const run_files& files, const process_group* group);

int tokenize(const options& o) {
  const corpus text = open_corpus(o);
  std::cout << text.name << ": " << text.train_bytes << " bytes to train on (" << text.train.size() << " tokens), "
            << text.heldout_bytes << " held out (" << text.heldout.size() << " tokens); " << text.pieces.size()
            << " pieces, " << text.bytes_per_token() << " bytes per token\n";
  return 0;
}

/// Kept beside the checkpoints, so that generating needs no text.
void keep_tokenizer(const corpus& text, const std::filesystem::path& folder) {
  write_file(folder / "tokenizer.model", text.tokenizer);
}

/// What can be said without the text.
void require_possible(const run_config& config) {
  validate(config);
  require_memory(config);
}

int train(options& o, bool budget_given, bool threads_given) {
  if (!budget_given)
    o.base.budget_flops = 3e12;
  o.base.what = parse_variant(o.variant);
  require_possible(o.base); // before the text is tokenised
  const run_files files(o.out, o.base);
  hmoe::require(o.resume || !std::filesystem::exists(files.checkpoint), files.checkpoint.string(),
                " is already there; give --resume to go on with it, or another --out");
  const auto group = start(o, threads_given);
  return with_corpus(o, group.get(), [&](const corpus& text) { return train(o, text, files, group.get()); });
}

int train(options& o, const corpus& text, const run_files& files, const process_group* group) {
  o.base.corpus_fingerprint = text.fingerprint;
  const bool first = group == nullptr || group->rank() == 0;
  if (first)
    keep_tokenizer(text, o.out);
  interrupt::listen();
  const auto results = run(o.base, text, files, o.threads, group);
  if (!first)
    return results ? 0 : interrupted_status;
  if (!results) {
    std::cerr << "interrupted; saved " << files.checkpoint.string() << ", go on with --resume\n";
    return interrupted_status;
  }
  const auto& final = results->at("final");
  std::cout << "bits per byte " << final.at("bits_per_byte") << ", activated width " << final.at("activated_width")
            << ", " << final.at("tokens") << " tokens in " << final.at("seconds") << " s\n"
            << "model: " << files.checkpoint.string() << "\nresults: " << files.results.string() << "\n"
            << "routing: " << files.routing.string() << "\n";
  return 0;
}

int compare_variants(comparison& wanted, const options& o, const corpus& text) {
  wanted.base.corpus_fingerprint = text.fingerprint;
  const bool first = wanted.group == nullptr || wanted.group->rank() == 0;
  if (first)
    keep_tokenizer(text, wanted.folder / "runs");
  interrupt::listen();
  const auto results = compare(wanted, text);
  const bool interrupted = results.at("interrupted").get<bool>();
  if (!first)
    return interrupted ? interrupted_status : 0;
  if (!results.at("variants").empty())
    print_table(std::cout, results);
  if (interrupted) {
    std::cerr << "interrupted; the same command goes on from here\n";
    return interrupted_status;
  }
  std::cout << "\nresults: " << (o.out / std::filesystem::path("results.json")).string()
            << "\nrouting of the trained models: " << (wanted.folder / "runs").string() << "/*.routing\n";
  return 0;
}

int compare_variants(options& o, bool budget_given, bool threads_given, const std::string& command) {
  comparison wanted;
  hmoe::require(o.list.empty() != o.variants.empty(), "compare needs either --list or one or more --variant");
  if (!o.list.empty()) {
    wanted.variants = named_list(o.list);
    wanted.add_controls = o.list == "full";
    if (!budget_given)
      o.base.budget_flops = named_list_budget(o.list);
  }
  for (const auto& description : o.variants)
    wanted.variants.push_back(parse_variant(description));
  validate(wanted.variants);
  for (auto& v : wanted.variants)
    if (o.seeds > 0)
      v.runs = o.seeds;
  for (const auto& v : wanted.variants) {
    run_config config = o.base;
    config.what = v;
    require_possible(config);
    hmoe::require(v.runs <= ~std::uint64_t{0} - o.base.seed, "--seed ", o.base.seed, " is too large for ", v.runs,
                  " runs, each with the next one");
  }
  const auto group = start(o, threads_given);
  wanted.base = o.base;
  wanted.folder = o.out;
  wanted.threads = o.threads;
  wanted.command = command;
  wanted.group = group.get();
  return with_corpus(o, group.get(), [&](const corpus& text) { return compare_variants(wanted, o, text); });
}

int prune(options& o, const std::string& command) {
  pruning_comparison& wanted = o.pruning;
  validate(wanted);
  wanted.models.assign(o.models.begin(), o.models.end());
  o.base.shape.vocabulary = run_config_from_json(load_checkpoint(o.models.front()).config).shape.vocabulary;
  wanted.folder = o.out;
  wanted.threads = o.threads;
  wanted.command = command;
  const corpus text = open_corpus(o);
  interrupt::listen();
  const auto results = compare_cuts(wanted, text);
  print_pruning_table(std::cout, results);
  if (results.at("interrupted").get<bool>()) {
    std::cerr << "interrupted\n";
    return interrupted_status;
  }
  std::cout << "\nresults: " << (wanted.folder / "pruning.json").string() << " and pruning.csv beside it\n";
  return 0;
}

int generate_text(const options& o) {
  std::cout << write_text(o.order) << "\n";
  return 0;
}

CLI::Option* add_corpus_options(CLI::App& command, options& o) {
  command.add_option("--text", o.text, "Text to learn, any UTF-8 file")->required()->check(CLI::ExistingFile);
  command.add_option("--work", o.work, "Folder that keeps the tokeniser and the tokens")->capture_default_str();
  return command.add_option("--threads", o.threads, "Threads; they change the speed, never the numbers")
      ->capture_default_str()
      ->check(whole_number(1, 4096));
}
CLI::Option* add_text_options(CLI::App& command, options& o) {
  auto* threads = add_corpus_options(command, o);
  command.add_option("--vocabulary", o.base.shape.vocabulary, "Tokens of the vocabulary")
      ->capture_default_str()
      ->check(whole_number(1, 65536));
  return threads;
}

/// Options that may not have been given.
struct training_options {
  CLI::Option *budget, *threads;
};

training_options add_training_options(CLI::App& command, options& o) {
  auto* threads = add_text_options(command, o);
  command.add_flag(
      "--expert-parallel", o.expert_parallel,
      "Under mpirun: divide experts and the tokens of each batch among the processes (threads are of each; "
      "by default they share the cores)");
  auto& shape = o.base.shape;
  auto& how = o.base.how;
  command.add_option("--out", o.out, "Folder for checkpoints and results")->capture_default_str();
  command.add_option("--seed", o.base.seed, "Seed of the (first) run")
      ->capture_default_str()
      ->check(whole_number(0, ~std::uint64_t{0}));
  auto* budget = command
                     .add_option("--budget", o.base.budget_flops,
                                 "Training FLOPs of each run (default: 3e12, or what the list says)")
                     ->check(finite_number());
  command.add_option("--d-model", shape.d_model, "Size of a token's vector")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Model");
  command.add_option("--blocks", shape.blocks, "Number of blocks")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Model");
  command.add_option("--heads", shape.heads, "Attention heads")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Model");
  command.add_option("--context", shape.context, "Tokens of a window")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Model");
  command.add_option("--batch", how.batch, "Windows per step")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Recipe");
  command.add_option("--learning-rate", how.learning_rate, "Peak of AdamW's learning rate")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--warmup", how.warmup_steps, "Steps until that peak")
      ->capture_default_str()
      ->check(whole_number(0))
      ->group("Recipe");
  command.add_option("--final-rate", how.final_rate, "Share of the peak at the end of the budget (cosine over FLOPs)")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--beta1", how.beta1, "AdamW's average of gradients keeps this share")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--beta2", how.beta2, "And that of squared gradients")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--weight-decay", how.weight_decay, "AdamW's, times the learning rate per step")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--gradient-norm", how.gradient_norm, "Longer gradients are cut to this")
      ->capture_default_str()
      ->check(finite_number())
      ->group("Recipe");
  command.add_option("--evaluation-tokens", how.evaluation_tokens, "Held-out tokens of the final evaluation")
      ->capture_default_str()
      ->check(whole_number(1))
      ->group("Recipe");
  return {budget, threads};
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Trains small language models with experts of unequal width (hmoe) and compares them at equal FLOPs.",
               "language_model");
  app.require_subcommand(1);
  options o;

  auto* tokenizer_command = app.add_subcommand("tokenizer", "Train the tokeniser on a text and tokenise it");
  add_text_options(*tokenizer_command, o);

  auto* train_command = app.add_subcommand("train", "Train one variant");
  const auto train_given = add_training_options(*train_command, o);
  train_command->add_option("--variant", o.variant, "What to train, see below")->capture_default_str();
  train_command->add_flag("--resume", o.resume, "Go on from the checkpoint in --out");
  train_command->footer(variant_help + policy_help());

  auto* compare_command =
      app.add_subcommand("compare", "Train several variants to the same FLOPs and print one table; finished runs in "
                                    "--out are kept, unfinished ones are resumed");
  const auto compare_given = add_training_options(*compare_command, o);
  compare_command->add_option("--variant", o.variants, "What to train, see below; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  compare_command->add_option("--list", o.list, "A built-in list of variants (with its budget)")
      ->check(CLI::IsMember(list_names()));
  compare_command->add_option("--seeds", o.seeds, "Runs of each variant (default: what the list says, else 1)")
      ->check(whole_number(1, 10000));
  compare_command->footer(variant_help + policy_help());

  auto* list_command =
      app.add_subcommand("list", "Print the routers, shared experts and losses that a variant can name");

  auto* generate_command = app.add_subcommand("generate", "Let a trained model write");
  generate_command->add_option("--checkpoint", o.order.checkpoint, "The model")->required()->check(CLI::ExistingFile);
  generate_command->add_option("--tokenizer", o.order.tokenizer, "Its tokeniser (default: tokenizer.model beside it)");
  generate_command->add_option("--prompt", o.order.prompt, "What it goes on with")->capture_default_str();
  generate_command->add_option("--tokens", o.order.tokens, "How much it writes")
      ->capture_default_str()
      ->check(whole_number(0, 1'000'000));
  generate_command->add_option("--temperature", o.order.temperature, "0 takes the likeliest token each time")
      ->capture_default_str()
      ->check(finite_number());
  generate_command->add_option("--seed", o.order.seed, "Another seed, another text")
      ->capture_default_str()
      ->check(whole_number(0, ~std::uint64_t{0}));

  auto* prune_command = app.add_subcommand(
      "prune",
      "Cut the experts of trained models to budgets in several ways, fine-tune each alike, and print one table");
  add_corpus_options(*prune_command, o);
  prune_command
      ->add_option("--model", o.models, "A trained model: NAME-seedS.checkpoint of train or compare; may be repeated")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::ExistingFile);
  prune_command->add_option("--out", o.out, "Folder for pruning.json and pruning.csv")->capture_default_str();
  prune_command
      ->add_option("--budget", o.pruning.budgets, "Share of the experts' parameters that stays; may be repeated")
      ->capture_default_str()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(finite_number());
  prune_command
      ->add_option("--calibration-tokens", o.pruning.calibration_tokens,
                   "Training tokens that importance is taken from")
      ->capture_default_str()
      ->check(whole_number(1, 1'000'000'000));
  prune_command
      ->add_option("--anneal-tokens", o.pruning.anneal_tokens,
                   "Training tokens that each cut is fine-tuned on; 0: none")
      ->capture_default_str()
      ->check(whole_number(0, 1'000'000'000));
  prune_command->add_option("--anneal-rate", o.pruning.anneal_rate, "Peak of the learning rate while fine-tuning")
      ->capture_default_str()
      ->check(finite_number());

  CLI11_PARSE(app, argc, argv);
  if (list_command->parsed()) {
    std::cout << policy_help();
    return 0;
  }
  if (tokenizer_command->parsed())
    return tokenize(o);
  if (train_command->parsed())
    return train(o, train_given.budget->count() > 0, train_given.threads->count() > 0);
  if (generate_command->parsed())
    return generate_text(o);
  std::string command = "language_model";
  for (int i = 1; i < argc; ++i)
    command += std::string(" ") + argv[i];
  if (prune_command->parsed())
    return prune(o, command);
  return compare_variants(o, compare_given.budget->count() > 0, compare_given.threads->count() > 0, command);
}

} // namespace
} // namespace language_model

int main(int argc, char** argv) {
  try {
    language_model::wait_passively(argv);
    return language_model::parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::cerr
        << "error: there is not enough memory for this text, model and batch: give smaller ones (--text, --d-model, "
           "--blocks, --batch, --context, or the experts of the variant)\n";
  } catch (const std::exception& e) {
    std::cerr << "error: " << language_model::reason(e) << "\n";
  }
  return 1;
}
