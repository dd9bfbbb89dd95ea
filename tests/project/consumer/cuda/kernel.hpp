// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda.hpp>

void launch_add(const hmoe::backends::cuda_context& gpu, hmoe::matrix_view<const float, hmoe::device_space> from,
                hmoe::matrix_view<float, hmoe::device_space> to);
