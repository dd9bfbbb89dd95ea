// SPDX-License-Identifier: MIT
// First figures of a GPU: forward passes in bfloat16, launched and as a CUDA graph, and training steps, up to 32,768
// tokens, with the memory that they take. Writes a JSON object per line. Starts quickly: weights are drawn at random,
// and nothing is compared (the tests do that).
//   probe [--shape NAME] [--tokens T]
#include <hmoe/backends/cuda/layer.cuh>
#include <hmoe/hmoe.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace hmoe;
using glu = experts::glu_bank<float, experts::silu>;
using layer_type = moe_layer<expert_set<glu>, routing::top_k_router<float>>;
template struct hmoe::backends::cuda_kernels<layer_type, hmoe::bfloat16>;

namespace {

using backends::cuda_detail::require_cuda;

struct shape {
  const char* name;
  std::vector<std::size_t> widths;
  std::size_t d, k;
};

/// Seconds that work takes on the device: the median of some rounds, each with an L2 cache that holds something else.
class stopwatch {
public:
  explicit stopwatch(const backends::cuda_context& gpu) : gpu_(gpu), other_(std::size_t{256} << 20U) {
    require_cuda(cudaEventCreate(&begin_), "creating an event");
    require_cuda(cudaEventCreate(&end_), "creating an event");
  }
  template <class Work> double median(std::size_t rounds, const Work& work) {
    std::vector<double> seconds;
    for (std::size_t i = 0; i < rounds + 2; ++i) { // the first two warm up
      other_.set_zero(gpu_.executor());
      require_cuda(cudaEventRecord(begin_, gpu_.stream()), "recording an event");
      work();
      require_cuda(cudaEventRecord(end_, gpu_.stream()), "recording an event");
      gpu_.synchronize();
      float milliseconds = 0;
      require_cuda(cudaEventElapsedTime(&milliseconds, begin_, end_), "reading events");
      if (i >= 2)
        seconds.push_back(static_cast<double>(milliseconds) * 1e-3);
    }
    std::ranges::sort(seconds);
    return seconds[seconds.size() / 2];
  }

private:
  const backends::cuda_context& gpu_;
  backends::device_buffer<std::byte> other_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// The median of `work` launched as a graph.
template <class Work>
double median_of_graph(const backends::cuda_context& gpu, stopwatch& watch, std::size_t rounds, const Work& work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  require_cuda(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal), "capturing");
  work();
  require_cuda(cudaStreamEndCapture(gpu.stream(), &graph), "capturing");
  require_cuda(cudaGraphInstantiate(&ready, graph, 0), "making a graph");
  const double seconds =
      watch.median(rounds, [&] { require_cuda(cudaGraphLaunch(ready, gpu.stream()), "launching a graph"); });
  (void)cudaGraphExecDestroy(ready);
  (void)cudaGraphDestroy(graph);
  return seconds;
}

void measure(const backends::cuda_context& gpu, stopwatch& watch, const shape& at,
             const backends::cuda_layer_of<layer_type, bfloat16>& layer, backends::cuda_gradients& gradients,
             std::size_t tokens) {
  matrix<float> drawn(tokens, at.d);
  fill_normal(vector_view<float>(drawn.data(), drawn.size()), 1.0, seed{2}, 0);
  matrix<bfloat16> narrow(tokens, at.d);
  std::ranges::transform(std::span(drawn.data(), drawn.size()), narrow.data(), [](float v) { return bfloat16(v); });
  const backends::device_matrix<bfloat16> x(gpu.executor(), std::as_const(narrow).view());
  backends::device_matrix<bfloat16> y(tokens, at.d), dx(tokens, at.d);
  const std::size_t rounds = tokens >= 4096 ? 7 : 15;

  const auto infer = [&] { layer.forward(gpu, x, y); };
  const double forward = watch.median(rounds, infer), forward_graph = median_of_graph(gpu, watch, rounds, infer);
  double training = 0, training_graph = 0;
  std::size_t tape_bytes = 0;
  if (tokens >= 256) {
    auto tape = layer.make_tape(tokens);
    tape_bytes = tape.bytes();
    const auto train = [&] {
      layer.forward(gpu, x, y, tape);
      layer.backward(gpu, tape, x, dx, gradients);
    };
    training = watch.median(3, train);
    training_graph = median_of_graph(gpu, watch, 3, train);
  }
  layer.check(gpu);
  double width = 0;
  for (const std::size_t w : at.widths)
    width += static_cast<double>(w) / static_cast<double>(at.widths.size());
  std::printf("{\"shape\": \"%s\", \"tokens\": %zu, \"flops\": %.6g, \"forward_us\": %.2f, \"forward_graph_us\": %.2f, "
              "\"training_us\": %.2f, \"training_graph_us\": %.2f, \"tape_bytes\": %zu, \"workspace_bytes\": %zu}\n",
              at.name, tokens, 6 * width * static_cast<double>(at.d * at.k * tokens), forward * 1e6,
              forward_graph * 1e6, training * 1e6, training_graph * 1e6, tape_bytes, gpu.workspace().capacity());
  std::fflush(stdout);
}

int run(std::string_view only_shape, std::size_t only_tokens) {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  cudaDeviceProp device{};
  require_cuda(cudaGetDeviceProperties(&device, gpu.device()), "asking the device");
  std::printf("{\"device\": \"%s\", \"compute_capability\": %d, \"multiprocessors\": %d}\n", device.name,
              gpu.compute_capability(), gpu.multiprocessors());
  const auto paper = [](std::size_t total) {
    return widths::arithmetic{.count = 8, .total = total, .first = 9, .last = 23};
  };
  const auto list_of = [](const auto& rule) {
    std::vector<std::size_t> list = rule;
    return list;
  };
  const std::vector<shape> shapes{{"hmoe_0.4b", list_of(paper(12288)), 768, 2},
                                  {"hmoe_0.4b_equal", std::vector<std::size_t>(8, 1536), 768, 2},
                                  {"hmoe_3b", list_of(paper(32768)), 2048, 2},
                                  {"hmoe_3b_equal", std::vector<std::size_t>(8, 4096), 2048, 2},
                                  {"qwen3_30b_a3b", std::vector<std::size_t>(128, 768), 2048, 8},
                                  {"mixtral", std::vector<std::size_t>(8, 14336), 4096, 2}};
  stopwatch watch(gpu);
  for (const shape& at : shapes) {
    if (!only_shape.empty() && only_shape != at.name)
      continue;
    layer_type host{expert_set{glu{at.d, at.widths}}, routing::top_k_router<float>{at.d, at.widths.size(), at.k}};
    std::uint64_t stream = 0;
    host.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
      fill_normal(vector_view<float>(view.data(), view.size()), 0.02, seed{1}, stream++);
    });
    const auto layer = backends::copy_to<bfloat16>(gpu, host);
    auto gradients = layer.make_gradients(gpu);
    for (const std::size_t tokens : {1UL, 16UL, 256UL, 4096UL, 32768UL})
      if (only_tokens == 0 || tokens == only_tokens)
        measure(gpu, watch, at, layer, gradients, tokens);
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) try {
  std::string only_shape;
  std::size_t only_tokens = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--shape")
      only_shape = argv[i + 1];
    else if (option == "--tokens")
      only_tokens = std::strtoul(argv[i + 1], nullptr, 10);
    else
      return std::fprintf(stderr, "probe [--shape NAME] [--tokens T]\n"), 2;
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("there is no GPU here");
    return 77;
  }
  return run(only_shape, only_tokens);
} catch (const std::exception& wrong) {
  std::fprintf(stderr, "probe: %s\n", wrong.what());
  return 1;
}
