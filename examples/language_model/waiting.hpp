// SPDX-License-Identifier: MIT
#pragma once

#include <cstdlib>

#if defined(__linux__)
#include <unistd.h>
#endif

namespace language_model {

/// Has idle OpenMP threads sleep instead of spin, unless the user chose otherwise. Spinning is slightly faster on an
/// idle machine, but several times slower when something else wants the same cores. OpenMP reads its settings before
/// main() begins, so the program starts itself once more; where that is impossible it goes on as it is.
inline void wait_passively(char** argv) {
#if defined(__linux__)
  if (std::getenv("OMP_WAIT_POLICY") == nullptr && setenv("OMP_WAIT_POLICY", "passive", 0) == 0) {
    execv("/proc/self/exe", argv);
  }
#else
  static_cast<void>(argv);
#endif
}

} // namespace language_model
