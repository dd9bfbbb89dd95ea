// SPDX-License-Identifier: MIT
#pragma once

#include <nanobind/nanobind.h>

namespace hmoe::python {

/// Adds what hmoe.nn calls to the module: experts as lists of tensors, routers, auxiliary losses, importance, files.
void add_nn(nanobind::module_& module);

} // namespace hmoe::python
