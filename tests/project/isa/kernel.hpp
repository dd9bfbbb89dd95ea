// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/isa.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <string>

/// y = x wᵀ
HMOE_ISA_FUNCTION(multiply,
                  void(hmoe::matrix_view<const float> x, hmoe::matrix_view<const float> w, hmoe::matrix_view<float> y));
/// How often multiply has been called at this level, behind the level's name.
HMOE_ISA_FUNCTION(compiled_and_calls, std::string());
