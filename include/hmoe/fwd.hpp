// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/space.hpp>

/// Declarations for headers that name hmoe's types and need nothing else of them.
namespace hmoe {

class error;

template <class T> class vector_view;
template <class T, class Space = host_space> class matrix_view;
template <class T> class buffer;
template <class T> class matrix;
template <class T> class ragged_matrix;
template <class T> struct parameter;

template <class T> class assignment;
class plan;
template <class T> class router_trace;
template <class T> struct routed_batch;
template <class T> class tape;

class workspace;
template <class Backend, class Executor, class Probe> class context;

template <class T> struct expert_rows;
struct row_limits;

template <class... Banks> class expert_set;
template <class... Losses> class objective;
template <class Experts, class Router> struct layer_gradients;
template <class Experts, class Router, class Dispatch> class moe_layer;
struct layer_cost;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
