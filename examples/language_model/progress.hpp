// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace language_model {

/// Says how a run gets on: one line that is rewritten on a terminal, else a line every twenty seconds.
class progress {
public:
  struct state {
    double fraction; ///< of the budget
    double loss;     ///< training loss in nats per token
    std::uint64_t tokens;
  };

  progress(std::string title, const state& start);
  ~progress();
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  void update(const state& now);

private:
  using clock = std::chrono::steady_clock;

  std::string title_;
  state start_;
  state shown_;
  clock::time_point begin_ = clock::now();
  clock::time_point last_;
  bool terminal_;
  bool dirty_ = false;
};

/// "1:05" or "2:00:31".
std::string format_duration(double seconds);

} // namespace language_model
