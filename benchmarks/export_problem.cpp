// SPDX-License-Identifier: MIT
// Writes the weights of a shape, an input and its result for competitors that are not C++ programs:
//   export_problem SHAPE TOKENS UNIFORM|ZIPF|COLLAPSED FILE (routing in lower case)
// The file: one line of JSON, then float32 arrays in this order: router [N×d]; of each expert gate [h×d], up [h×d],
// down [d×h]; x [T×d]; y [T×d], hmoe's result.
#include "support/model.hpp"

#include <algorithm>
#include <exception>
#include <fstream>
#include <iostream>
#include <span>
#include <string>

namespace {

using namespace benchmarks;

void write(std::ostream& out, hmoe::matrix_view<const float> values) {
  for (std::size_t r = 0; r < values.rows(); ++r) {
    const auto bytes = std::as_bytes(std::span(values.row(r).data(), values.cols()));
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
}

void export_problem(const std::string& name, std::size_t tokens, const std::string& spread, const std::string& file) {
  const auto all = shapes();
  const auto shape = std::ranges::find(all, name, &layer_shape::name);
  hmoe::require(shape != all.end(), "there is no shape ", name);
  const auto routing = std::ranges::find(all_routings, spread, [](auto r) { return std::string(name_of(r)); });
  hmoe::require(routing != all_routings.end(), "there is no routing ", spread);
  hmoe::require(!shape->mixed(), name, " has experts of several kinds, which only hmoe runs");

  model weights(*shape, model::copies::one, 2);
  const batch& input = weights.batches(tokens, *routing).front();
  std::ofstream out(file, std::ios::binary);
  out << R"({"shape": ")" << shape->name << R"(", "d_model": )" << shape->d_model << R"(, "tokens": )" << tokens
      << R"(, "top_k": )" << shape->top_k << R"(, "top_p": )" << shape->top_p << R"(, "flops": )" << input.flops
      << R"(, "routing": ")" << spread << R"(", "widths": [)";
  for (std::size_t e = 0; e < shape->widths.size(); ++e)
    out << (e == 0 ? "" : ", ") << shape->widths[e];
  out << "]}\n";
  std::visit([&](auto& layer) { write(out, layer.router().score().weight()); }, weights.layer(0));
  const glu_bank& bank = weights.bank(0);
  for (std::size_t e = 0; e < bank.size(); ++e) {
    write(out, bank.gate(e));
    write(out, bank.up(e));
    write(out, bank.down(e));
  }
  write(out, input.x);
  write(out, input.expected);
  hmoe::require(out.flush().good(), "cannot write ", file);
}

} // namespace

int main(int argc, char** argv) try {
  hmoe::require(argc == 5, "usage: export_problem SHAPE TOKENS uniform|zipf|collapsed FILE");
  export_problem(argv[1], std::stoul(argv[2]), argv[3], argv[4]);
} catch (const std::exception& reason) {
  std::cerr << "export_problem: " << reason.what() << "\n";
  return 1;
}
