// SPDX-License-Identifier: MIT
// Function-like macros of other headers do no harm, and are there afterwards.
// flags: -fopenmp -DHMOE_WITH_EIGEN -DHMOE_WITH_SIMD
// compile only
#include <Eigen/Core>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory_resource>
#include <mutex>
#include <numeric>
#include <optional>
#include <sstream>
#include <thread>

#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define check(what) check_of_another_header(what)
#define require(what) require_of_another_header(what)
#define fail(what) fail_of_another_header(what)

#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress.hpp>
#include <hmoe/dispatch/measure_machine.hpp>
#include <hmoe/dispatch/tune.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/execution/tbb.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/interop/eigen.hpp>
#include <hmoe/io/gguf.hpp>
#include <hmoe/io/models/load_layer.hpp>
#include <hmoe/io/models/load_packed_layer.hpp>
#include <hmoe/io/packed_checkpoint.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_experts.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/io/routing_text.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/io/tuned_table.hpp>
#include <hmoe/layer/any_layer.hpp>
#include <hmoe/parallel/by_cost.hpp>
#include <hmoe/parallel/checkpoint.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/global_batch.hpp>
#include <hmoe/parallel/gradients.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/rebalance.hpp>
#include <hmoe/parallel/rebalance_rule.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/probes/counters.hpp>
#include <hmoe/probes/stages.hpp>
#include <hmoe/probes/trace.hpp>
#include <hmoe/testing/activation_laws.hpp>
#include <hmoe/testing/backend_laws.hpp>
#include <hmoe/testing/batch_selection_laws.hpp>
#include <hmoe/testing/capacity_laws.hpp>
#include <hmoe/testing/communicator_laws.hpp>
#include <hmoe/testing/dispatch_laws.hpp>
#include <hmoe/testing/drop_order_laws.hpp>
#include <hmoe/testing/executor_laws.hpp>
#include <hmoe/testing/expert_laws.hpp>
#include <hmoe/testing/gate_laws.hpp>
#include <hmoe/testing/loss_laws.hpp>
#include <hmoe/testing/optimizer_laws.hpp>
#include <hmoe/testing/probe_laws.hpp>
#include <hmoe/testing/router_laws.hpp>
#include <hmoe/testing/selection_laws.hpp>
#include <hmoe/testing/weighting_laws.hpp>
#include <hmoe/testing/widths_laws.hpp>

static_assert(min(1, 2) == 1 && max(1, 2) == 2);
#if !defined(check) || !defined(require) || !defined(fail)
#error "the macros of the other header are gone"
#endif

using namespace hmoe;

void run(matrix_view<const float> x, matrix_view<float> y) {
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(4, {1, 2})},
                  routing::top_k_router<float>(4, 2, 1)};
  layer.forward(context{backends::reference{}, executors::openmp{2}}, x, y);
}
