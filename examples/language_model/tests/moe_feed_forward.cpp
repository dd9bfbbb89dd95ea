// SPDX-License-Identifier: MIT
// In double, for the checks of gradients.
#include "moe_feed_forward.hpp"

namespace language_model {

template std::unique_ptr<feed_forward<double>> make_moe_feed_forward(const layer_setup&, const layer_router<double>&,
                                                                     std::unique_ptr<adaptation<double>>);

} // namespace language_model
