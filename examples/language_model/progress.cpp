// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace language_model {

std::string format_duration(double seconds) {
  const auto whole = static_cast<unsigned long long>(std::max(0.0, std::round(seconds)));
  char text[48];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%llu:%02llu", whole / 60, whole % 60);
  }
  return text;
}

progress::progress(std::string title, const state& start)
    : title_(std::move(title)), start_(start), shown_(start), terminal_(isatty(STDERR_FILENO) != 0) {
  last_ = begin_;
}

progress::~progress() {
  if (dirty_)
    std::fputc('\n', stderr);
}

void progress::update(const state& now) {
  using seconds = std::chrono::duration<double>;
  const auto time = clock::now();
  const double since = seconds(time - last_).count();
  const bool finished = now.fraction >= 1.0;
  if (since < (terminal_ ? 0.2 : 20.0) && !finished)
    return;
  const double elapsed = seconds(time - begin_).count();
  const double speed = static_cast<double>(now.tokens - shown_.tokens) / std::max(since, 1e-9);
  const double done = std::max(now.fraction - start_.fraction, 1e-9);
  const double remaining = elapsed * std::max(0.0, 1.0 - now.fraction) / done;
  const double percent = 100.0 * std::min(now.fraction, 1.0);
  if (terminal_) {
    constexpr int width = 24;
    const int filled = static_cast<int>(percent / 100.0 * width);
    std::fprintf(stderr, "\r%-28s [%.*s%.*s] %5.1f %%  loss %.3f  %6.0f tokens/s  %s left \033[K", title_.c_str(),
                 filled, "########################", width - filled, "........................", percent, now.loss,
                 speed, format_duration(remaining).c_str());
    dirty_ = true;
  } else {
    std::fprintf(stderr, "%s: %.1f %%, loss %.3f, %.0f tokens/s, %s left\n", title_.c_str(), percent, now.loss, speed,
                 format_duration(remaining).c_str());
  }
  std::fflush(stderr);
  last_ = time;
  shown_ = now;
}

} // namespace language_model
