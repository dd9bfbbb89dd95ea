// SPDX-License-Identifier: MIT
// Measures which dispatch strategy is quickest for a layer of SwiGLU experts and writes the table that
// dispatch::automatic reads. Without arguments it tunes a small layer and prints the table. See scripts/tune.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/tune.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/io/tuned_table.hpp>

#include <charconv>
#include <cstddef>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace hmoe;

namespace {

struct options {
  std::size_t d_model = 64, k = 2, threads = 1;
  std::vector<std::size_t> widths{32, 48, 64};
  std::string format = "none", out;
  dispatch::tune_options tuning{.tokens = {1, 16}, .seconds = 0.005, .training = false, .cpu = io::cpu_name()};
};

std::size_t number(std::string_view name, std::string_view text, std::size_t most) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc{} && end == text.data() + text.size() && value >= 1 && value <= most, name, " is \"", text,
          "\": give a number from 1 to ", most);
  return value;
}
std::vector<std::size_t> numbers(std::string_view name, std::string_view text, std::size_t most) {
  std::vector<std::size_t> all;
  for (;;) {
    const std::size_t comma = text.find(',');
    all.push_back(number(name, text.substr(0, comma), most));
    if (comma == std::string_view::npos)
      return all;
    text.remove_prefix(comma + 1);
  }
}

std::vector<double> decimals(std::string_view name, std::string_view text) {
  std::vector<double> all;
  for (;;) {
    const std::size_t comma = text.find(',');
    const std::string_view one = text.substr(0, comma);
    const auto [end, error] = std::from_chars(one.data(), one.data() + one.size(), all.emplace_back());
    require(error == std::errc{} && end == one.data() + one.size(), name, " is \"", one, "\": give a number");
    if (comma == std::string_view::npos)
      return all;
    text.remove_prefix(comma + 1);
  }
}

options parse(int count, char** values) {
  options result;
  for (int i = 1; i < count; i += 2) {
    const std::string_view name = values[i];
    require(i + 1 < count, name, " needs a value");
    const std::string_view value = values[i + 1];
    if (name == "--d-model")
      result.d_model = number(name, value, 65536);
    else if (name == "--widths")
      result.widths = numbers(name, value, 1 << 20);
    else if (name == "--k")
      result.k = number(name, value, 4096);
    else if (name == "--threads")
      result.threads = number(name, value, 4096);
    else if (name == "--tokens")
      result.tuning.tokens = numbers(name, value, 1 << 20);
    else if (name == "--skews")
      result.tuning.skews = decimals(name, value);
    else if (name == "--milliseconds")
      result.tuning.seconds = static_cast<double>(number(name, value, 1'000'000)) / 1000;
    else if (name == "--training")
      result.tuning.training = value == "yes";
    else if (name == "--format")
      result.format = value;
    else if (name == "--out")
      result.out = value;
    else
      fail("unknown option " + std::string(name));
  }
  return result;
}

void run(const options& chosen) {
  experts::glu_bank<float, experts::silu> bank{chosen.d_model, chosen.widths};
  routing::top_k_router<float> router{chosen.d_model, bank.size(), chosen.k};
  moe_layer layer{expert_set{std::move(bank)}, std::move(router), dispatch::scattered{}};
  layer.initialize(seed{42}, {.router_stddev = 1});
  const context ctx{backends::simd{}, executors::openmp{chosen.threads}};
  const auto finish = [&](const auto& tuned) {
    const dispatch::tuned_table table = dispatch::tune(tuned, ctx, chosen.tuning);
    if (chosen.out.empty())
      std::cout << io::tuned_table_text(table);
    else
      io::write_tuned_table(table, chosen.out);
  };
  if (chosen.format == "none")
    finish(layer);
  else if (chosen.format == "f32")
    finish(backends::simd<>::pack<backends::formats::f32>(layer));
  else if (chosen.format == "bf16")
    finish(backends::simd<>::pack<backends::formats::bf16>(layer));
  else if (chosen.format == "q8")
    finish(backends::simd<>::pack<backends::formats::q8>(layer));
  else
    fail("--format is \"" + chosen.format + "\": possible are none, f32, bf16 and q8");
}

} // namespace

int main(int count, char** values) {
  try {
    run(parse(count, values));
  } catch (const error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
