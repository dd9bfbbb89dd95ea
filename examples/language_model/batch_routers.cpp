// SPDX-License-Identifier: MIT
#include "routers.hpp"

namespace language_model {

template std::vector<router_entry<float>> batch_routers<float>();

} // namespace language_model
