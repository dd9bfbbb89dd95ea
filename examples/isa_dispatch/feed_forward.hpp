// SPDX-License-Identifier: MIT
// What the program and the kernels of every level share. It must mean the same under all flags: views, numbers and
// classes of your own, but no backend, no packed weights and no Eigen matrix.
#pragma once

#include <hmoe/backends/isa.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <cstddef>
#include <memory>

struct feed_forward {
  virtual ~feed_forward() = default;
  virtual void run(hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y) = 0;
};

HMOE_ISA_FUNCTION(make_feed_forward, std::unique_ptr<feed_forward>(std::size_t d_model));
