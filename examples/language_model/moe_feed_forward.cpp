// SPDX-License-Identifier: MIT
#include "moe_feed_forward.hpp"

namespace language_model {

template std::unique_ptr<feed_forward<float>> make_moe_feed_forward(const layer_setup&, const layer_router<float>&,
                                                                    std::unique_ptr<adaptation<float>>);

} // namespace language_model
