// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>

#include "process_group.hpp"

namespace language_model {

std::unique_ptr<process_group> start_processes() {
  throw hmoe::error("--expert-parallel needs MPI, which this program is built without: build the target "
                    "language_model_mpi, as scripts/demo --ranks does");
}

} // namespace language_model
