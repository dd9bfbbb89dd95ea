// SPDX-License-Identifier: MIT
// expect: hmoe::context: Probe does not model hmoe::probe: it needs begin\(event\) and end\(event\), both noexcept
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct my_probe {
#ifdef HMOE_MUST_COMPILE
  void begin(const probes::event&) noexcept {}
  void end(const probes::event&) noexcept {}
#else
  void begin(const probes::event&) {}
  void end(const probes::event&) {}
#endif
};

std::size_t run() {
  const context cpu{backends::reference{}, executors::serial{}, my_probe{}};
  return cpu.executor().concurrency();
}
