// SPDX-License-Identifier: MIT
// hmoe beside other projects' layers (scripts/bench peers): writes the problem that all of them solve, and is hmoe's
// own process in the race that benchmarks/peers/race.py holds.
//   peers shapes                                       the names of the layers, a line each
//   peers export FOLDER SHAPE TOKENS,... LOAD,...      writes a problem (peers/problem.hpp); loads are uniform, zipf
//   peers serve FOLDER FORMAT THREADS DESCRIPTOR       reads requests, a line of JSON each, from standard input and
//                                                      writes a line of JSON to the descriptor for each:
//     (at the start)                                   {"ready": …} or {"failed": reason}
//     {"do": "check", "tokens": T, "load": L}          {"difference": ‖y − expected‖ / ‖expected‖}
//     {"do": "run", "tokens": T, "load": L, "seconds": S}   {"seconds": of a pass, "passes": n}
//     {"do": "limits"}                                 {"peak": FLOP/s, "dram": bytes/s}
// A peer gets expert ids and weights, so hmoe does, too: a pass is plan, experts and combine (dispatch::scattered),
// without a router. Copies of the weights take turns, so that they are cold, and so do inputs.
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/last_cache.hpp>

#include "peers/packed.hpp"
#include "peers/problem.hpp"
#include "support/machine.hpp"
#include "support/model.hpp"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace benchmarks;
using json = nlohmann::ordered_json;

template <class T> void write_values(std::ofstream& to, std::span<const T> values) {
  to.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
}

std::ofstream new_file(const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  hmoe::require(file.good(), path, " cannot be written");
  return file;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream list(text);
  for (std::string word; std::getline(list, word, ',');)
    all.push_back(word);
  return all;
}

void write_weights(const std::string& folder, const glu_bank& bank) {
  std::ofstream to = new_file(folder + "/weights.bin");
  const auto write = [&](hmoe::matrix_view<const float> matrix) {
    for (std::size_t r = 0; r < matrix.rows(); ++r)
      write_values(to, std::span(matrix.row(r).data(), matrix.cols()));
  };
  for (std::size_t e = 0; e < bank.size(); ++e) {
    write(bank.gate(e));
    write(bank.up(e));
    write(bank.down(e));
  }
  hmoe::require(to.flush().good(), folder, "/weights.bin cannot be written: is the disk full?");
}

/// How many inputs of that size take turns. Few tokens choose few experts, and the next input shall choose others.
std::size_t inputs_of(std::size_t tokens) { return tokens <= 4 ? 31 : tokens <= 64 ? 7 : tokens <= 256 ? 3 : 2; }

/// The inputs of one size and load, and what problem.json says of them.
json write_inputs(const std::string& folder, model& weights, std::size_t tokens, routing load) {
  const std::string stem = folder + "/" + std::to_string(tokens) + "-" + std::string(name_of(load));
  const layer_shape& shape = weights.shape();
  const auto per_neuron = static_cast<double>(3 * shape.d_model);
  json said{{"tokens", tokens}, {"load", name_of(load)}, {"count", inputs_of(tokens)}};
  const std::vector<batch>& inputs = weights.batches(tokens, load, inputs_of(tokens));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const batch& input = inputs[i];
    std::ofstream to = new_file(stem + "-" + std::to_string(i) + ".bin");
    write_values(to, std::span(input.x.data(), input.x.size()));
    std::vector<std::int32_t> ids(input.assigned.size());
    std::ranges::transform(input.assigned.experts(), ids.begin(), [](auto e) { return static_cast<std::int32_t>(e); });
    write_values(to, std::span<const std::int32_t>(ids));
    write_values(to, std::span(input.assigned.weights().data(), ids.size()));
    hmoe::require(to.flush().good(), stem, " cannot be written: is the disk full?");
    double rows = 0, read = 0;
    for (std::size_t e = 0; e < shape.experts(); ++e) {
      const std::size_t count = input.plan.rows_of(e);
      rows += static_cast<double>(count * shape.widths[e]);
      read += count != 0 ? static_cast<double>(shape.widths[e]) : 0;
    }
    said["flops"].push_back(2 * per_neuron * rows);
    said["weights"].push_back(per_neuron * read);
  }
  std::ofstream to = new_file(stem + ".y.bin");
  write_values(to, std::span(inputs[0].expected.data(), inputs[0].expected.size()));
  return said;
}

/// Bytes of weights that copies shall have together: two last-level caches of them are read between two uses of a
/// token's. Where experts are many, 20 caches are enough: an expert that was used within the last two of them is then
/// met by a token in ten at most.
double cold_bytes(const layer_shape& shape) {
  const auto cache = static_cast<double>(hmoe::last_cache_bytes());
  return cache * std::min(20.0, 2.0 * static_cast<double>(shape.experts()) / static_cast<double>(shape.top_k));
}

void export_problem(const std::string& folder, const std::string& name, const std::string& tokens,
                    const std::string& loads) {
  const auto all = peer_shapes();
  const auto shape = std::ranges::find(all, name, &layer_shape::name);
  hmoe::require(shape != all.end(), "there is no shape ", name);
  model weights(*shape, model::copies::one, 1.3);
  write_weights(folder, weights.bank(0));
  json problem{{"shape", name},
               {"d_model", shape->d_model},
               {"widths", shape->widths},
               {"top_k", shape->top_k},
               {"cold_bytes", cold_bytes(*shape)}};
  for (const std::string& load : words(loads)) {
    const auto spread = std::ranges::find(all_routings, load, [](routing r) { return std::string(name_of(r)); });
    hmoe::require(spread != all_routings.end(), "there is no load ", load);
    for (const std::string& count : words(tokens))
      problem["inputs"].push_back(write_inputs(folder, weights, std::stoul(count), *spread));
  }
  new_file(folder + "/problem.json") << problem.dump(1) << "\n";
}

/// Seconds that passed; with one thread, no more than seconds of the CPU, so that what others do does not count.
class stop_watch {
public:
  explicit stop_watch(std::size_t threads) : one_(threads == 1) {}
  [[nodiscard]] std::pair<double, double> now() const { return {at(CLOCK_MONOTONIC), at(CLOCK_PROCESS_CPUTIME_ID)}; }
  [[nodiscard]] double since(std::pair<double, double> start) const {
    const auto [passed, used] = now();
    return one_ ? std::min(passed - start.first, used - start.second) : passed - start.first;
  }

private:
  [[nodiscard]] static double at(::clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  bool one_;
};

/// hmoe's layer in one format, ready for requests.
class server {
public:
  server(std::string folder, const std::string& format, std::size_t threads)
      : folder_(std::move(folder)), threads_(threads), watch_(threads),
        ctx_({}, hmoe::executors::openmp{threads}, switched_stages{}) {
    std::ifstream(folder_ + "/problem.json") >> problem_;
    const auto& all = peer_formats();
    const auto found = std::ranges::find(all, format, &peer_format::name);
    hmoe::require(found != all.end(), "hmoe has no format ", format);
    format_ = &*found;
    const mapped_weights weights(folder_, problem_);
    copies_.push_back(found->pack(weights));
    double bytes = 0;
    for (std::size_t e = 0; e < copies_[0]->size(); ++e)
      bytes += static_cast<double>(copies_[0]->bytes(e));
    while (static_cast<double>(copies_.size()) * bytes < problem_.at("cold_bytes").get<double>())
      copies_.push_back(copies_[0]->copy());
  }

  json greeting() const {
    return {{"ready", true},
            {"version", "hmoe " + std::to_string(HMOE_VERSION_MAJOR) + "." + std::to_string(HMOE_VERSION_MINOR) + "." +
                            std::to_string(HMOE_VERSION_PATCH) + ", " + HMOE_BENCHMARKS_COMPILER},
            {"bytes_per_weight", format_->bytes_per_weight},
            {"copies", copies_.size()}};
  }
  json answer(const json& request) {
    const std::string what = request.at("do");
    if (what == "limits") {
      const limits found = limits_now(format_->kind, threads_);
      return {{"peak", found.peak}, {"dram", found.dram}};
    }
    take(request.at("tokens"), request.at("load"));
    return what == "check" ? check() : run(request.at("seconds"));
  }

private:
  void take(std::size_t tokens, const std::string& load) {
    if (tokens == tokens_ && load == load_)
      return;
    inputs_.clear();
    const std::size_t d = problem_.at("d_model"), k = problem_.at("top_k");
    stem_ = folder_ + "/" + std::to_string(tokens) + "-" + load;
    for (const json& known : problem_.at("inputs"))
      if (known.at("tokens") == tokens && known.at("load") == load)
        for (std::size_t i = 0; i < known.at("count").get<std::size_t>(); ++i)
          inputs_.push_back(read_input(stem_ + "-" + std::to_string(i) + ".bin", tokens, d, k));
    hmoe::require(!inputs_.empty(), "the problem has no inputs of ", tokens, " tokens with the load ", load);
    y_ = hmoe::matrix<float>(tokens, d);
    tokens_ = tokens;
    load_ = load;
    last_ = 0;
  }

  /// One pass; the assignment is where the router would leave it.
  double pass(std::size_t copy, const peer_input& input) {
    const hmoe::workspace::scope scope(ctx_.workspace());
    hmoe::tape<float> tape(&ctx_.workspace(), false);
    tape.assignment().resize_tokens(input.assigned.tokens());
    std::ranges::copy(input.assigned.offsets(), tape.assignment().offsets().begin());
    tape.assignment().resize_entries();
    std::ranges::copy(input.assigned.experts(), tape.assignment().experts().begin());
    std::ranges::copy(input.assigned.weights(), tape.assignment().weights().begin());
    const auto start = watch_.now();
    hmoe::dispatch::scattered{}.forward(ctx_, *copies_[copy], input.x.view(), y_.view(), tape);
    return watch_.since(start);
  }

  json check() {
    last_ = pass(0, inputs_[0]);
    const hmoe::matrix<float> expected = read_expected(stem_ + ".y.bin", tokens_, y_.cols());
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < y_.size(); ++i) {
      const double right = static_cast<double>(expected.data()[i]);
      const double delta = static_cast<double>(y_.data()[i]) - right;
      difference += delta * delta;
      size += right * right;
    }
    return {{"difference", std::sqrt(difference / size)}};
  }

  /// Passes until they took `seconds`, one at least; before them one that does not count where they are short.
  json run(double seconds) {
    if (last_ < 0.05)
      turn();
    double time = 0;
    std::size_t passes = 0;
    while (passes == 0 || time < seconds) {
      time += turn();
      ++passes;
    }
    return {{"seconds", time / static_cast<double>(passes)}, {"passes", passes}};
  }
  double turn() {
    last_ = pass(round_ % copies_.size(), inputs_[round_ % inputs_.size()]);
    ++round_;
    return last_;
  }

  std::string folder_, stem_, load_;
  std::size_t threads_, tokens_ = 0, round_ = 0;
  stop_watch watch_;
  dispatch_context ctx_;
  json problem_;
  const peer_format* format_ = nullptr;
  std::vector<std::unique_ptr<any_experts>> copies_;
  std::vector<peer_input> inputs_;
  hmoe::matrix<float> y_;
  double last_ = 0; ///< seconds of the last pass
};

void serve(const std::string& folder, const std::string& format, std::size_t threads, int descriptor) {
  const auto say = [&](const json& reply) {
    const std::string line = reply.dump() + "\n";
    hmoe::require(::write(descriptor, line.data(), line.size()) == static_cast<::ssize_t>(line.size()),
                  "nobody reads the replies");
  };
  const auto guarded = [&](const auto& work) {
    try {
      say(work());
      return true;
    } catch (const std::exception& reason) {
      say({{"failed", reason.what()}});
      return false;
    }
  };
  std::unique_ptr<server> made;
  if (!guarded([&] {
        made = std::make_unique<server>(folder, format, threads);
        return made->greeting();
      }))
    return;
  for (std::string line; std::getline(std::cin, line);)
    guarded([&] { return made->answer(json::parse(line)); });
}

} // namespace

int main(int count, char** values) try {
  const std::vector<std::string> words(values + 1, values + count);
  if (words.size() == 1 && words[0] == "shapes")
    for (const layer_shape& shape : peer_shapes())
      std::cout << shape.name << "\n";
  else if (words.size() == 5 && words[0] == "export")
    export_problem(words[1], words[2], words[3], words[4]);
  else if (words.size() == 5 && words[0] == "serve")
    serve(words[1], words[2], std::stoul(words[3]), std::stoi(words[4]));
  else
    hmoe::fail(
        "usage: peers shapes | export FOLDER SHAPE TOKENS,... LOAD,... | serve FOLDER FORMAT THREADS DESCRIPTOR");
} catch (const std::exception& reason) {
  std::cerr << "peers: " << reason.what() << "\n";
  return 1;
}
