// SPDX-License-Identifier: MIT
// In double, for the checks of gradients.
#include "routers.hpp"

namespace language_model {

template std::vector<router_entry<double>> moving_routers<double>();

} // namespace language_model
