// SPDX-License-Identifier: MIT
#pragma once

namespace support {

/// Stands where an expert is given the backend, and has nothing: a kind that compiles with it calls no product.
struct no_products {};

} // namespace support
