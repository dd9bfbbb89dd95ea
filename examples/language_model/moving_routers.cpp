// SPDX-License-Identifier: MIT
#include "routers.hpp"

namespace language_model {

template std::vector<router_entry<float>> moving_routers<float>();

} // namespace language_model
