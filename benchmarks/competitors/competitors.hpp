// SPDX-License-Identifier: MIT
#pragma once

#include "../support/subject.hpp"

/// What else computes the same layer: each in a file of its own, and only where its library was found. The competitors
/// get the routing and the plan ready-made; hmoe's own time includes both.
namespace benchmarks::competitors {

subject padded();              ///< hmoe itself, every expert padded with zeros to the widest
subject eigen_per_expert();    ///< gather, Eigen's product, activation, Eigen's product, weighted scatter
subject openblas_per_expert(); ///< the same with OpenBLAS
subject onednn_per_expert();   ///< the same with oneDNN, weights packed beforehand

} // namespace benchmarks::competitors
