// SPDX-License-Identifier: MIT
#pragma once

#include <csignal>

namespace language_model {

/// Turns the first Ctrl-C (or SIGTERM) into a request that training looks at between two steps; the second one ends
/// the program as usual.
class interrupt {
public:
  static void listen() {
    std::signal(SIGINT, &interrupt::request);
    std::signal(SIGTERM, &interrupt::request);
  }
  static bool requested() { return flag_ != 0; }
  /// Forgets a request.
  static void clear() { flag_ = 0; }

private:
  static void request(int signal) {
    flag_ = 1;
    std::signal(signal, SIG_DFL);
  }

  // A signal handler reaches nothing but globals.
  static inline volatile std::sig_atomic_t flag_ = 0;
};

} // namespace language_model
