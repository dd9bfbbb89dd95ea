// SPDX-License-Identifier: MIT
// Packs a layer of unequal experts from its checkpoint, runs a batch, and tells the layer's structure, the load of its
// experts, time, efficiency and memory. Without a file it makes a checkpoint of a model's shape with random weights,
// whose experts have unequal widths as pruning leaves them.
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/prune_neurons.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/io/packed_checkpoint.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_experts.hpp>
#include <hmoe/io/routing_text.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace hmoe;
namespace formats = backends::formats;
using backends::simd;

namespace {

constexpr const char* usage = R"(usage: run_checkpoint [FILE] [OPTION VALUE]...
  FILE          a checkpoint of unequal experts, or of packed ones (--save); else one is made
  --prefix P    the layer's tensors begin with it (default: none)
  --shape NAME  of the checkpoint to make: tiny (default), qwen3_30b_a3b, olmoe, gpt_oss_20b, deepseek_v2_lite
  --kept P      neurons that pruning has left, in percent (default: 50): widths from 0 to the full one
  --prune P     keeps P percent of the neurons, those that matter most to a batch of random tokens; needs memory for the
                layer in float
  --make FILE   keeps the checkpoint that is made
  --format F    f32, bf16, q8 (default), q4, mxfp4
  --k K         experts of a token (default: those of the shape, of a file 2)
  --tokens T    of the batch (default: 64)
  --threads N   (default: 1)
  --repeats N   passes that are timed; the median counts (default: 5)
  --save FILE   the packed layer, to be mapped the next time
  --dump-trace FILE   the routing of the batch, as JSON lines
)";

struct model_shape {
  std::string_view name;
  std::size_t experts, width, d_model, k;
  bool gpt_oss;
};
constexpr model_shape shapes[] = {{"tiny", 16, 96, 256, 4, false},
                                  {"qwen3_30b_a3b", 128, 768, 2048, 8, false},
                                  {"olmoe", 64, 1024, 2048, 8, false},
                                  {"gpt_oss_20b", 32, 2880, 2880, 4, true},
                                  {"deepseek_v2_lite", 64, 1408, 2048, 6, false}};

struct options {
  std::string file, prefix, make, format = "q8", save, trace;
  const model_shape* shape = &shapes[0];
  std::size_t kept = 50, prune = 0, k = 0, tokens = 64, threads = 1, repeats = 5;
};

std::size_t number(std::string_view name, std::string_view text, std::size_t most) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc{} && end == text.data() + text.size() && value >= 1 && value <= most, name, " is \"", text,
          "\": give a number from 1 to ", most);
  return value;
}
const model_shape& shape_named(std::string_view name) {
  const auto* found = std::ranges::find(shapes, name, &model_shape::name);
  require(found != std::end(shapes), "--shape is \"", name,
          "\": possible are tiny, qwen3_30b_a3b, olmoe, gpt_oss_20b, ", "deepseek_v2_lite");
  return *found;
}
options parse(int count, char** values) {
  options result;
  int i = 1;
  if (count > 1 && !std::string_view(values[1]).starts_with("--"))
    result.file = values[i++];
  for (; i < count; i += 2) {
    const std::string_view name = values[i];
    require(i + 1 < count, name, " needs a value");
    const std::string_view value = values[i + 1];
    if (name == "--prefix")
      result.prefix = value;
    else if (name == "--shape")
      result.shape = &shape_named(value);
    else if (name == "--kept")
      result.kept = number(name, value, 100);
    else if (name == "--prune")
      result.prune = number(name, value, 99);
    else if (name == "--make")
      result.make = value;
    else if (name == "--format")
      result.format = value;
    else if (name == "--k")
      result.k = number(name, value, 4096);
    else if (name == "--tokens")
      result.tokens = number(name, value, 1 << 20);
    else if (name == "--threads")
      result.threads = number(name, value, 4096);
    else if (name == "--repeats")
      result.repeats = number(name, value, 1 << 20);
    else if (name == "--save")
      result.save = value;
    else if (name == "--dump-trace")
      result.trace = value;
    else
      fail("unknown option " + std::string(name) + "\n" + usage);
  }
  if (result.k == 0)
    result.k = result.file.empty() ? result.shape->k : 2;
  return result;
}

// Memory, of this process and of the machine.

/// Bytes that a line of a file of /proc tells in kB, or 0 where there is none.
double bytes_in(const char* path, std::string_view name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name)) {
      double kilobytes = 0;
      std::istringstream(line.substr(name.size() + 1)) >> kilobytes;
      return 1024 * kilobytes;
    }
  return 0;
}
std::string megabytes(double bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << bytes / 1e6 << " MB";
  return text.str();
}

// A checkpoint of random weights.

/// Widths from 0 to the full one in an order without meaning: h · u^(1/kept − 1), whose mean is kept · h for u that are
/// spread evenly from 0 to 1.
std::vector<std::size_t> pruned_widths(const model_shape& shape, std::size_t experts, double kept) {
  std::vector<std::size_t> widths(experts);
  std::size_t step = 7;
  while (std::gcd(step, experts) != 1)
    ++step;
  for (std::size_t e = 0; e < experts; ++e) {
    const std::size_t place = e * step % experts;
    const double u = experts == 1 ? 1 : static_cast<double>(place) / static_cast<double>(experts - 1);
    widths[e] = static_cast<std::size_t>(std::lround(static_cast<double>(shape.width) * std::pow(u, 1 / kept - 1)));
  }
  return widths;
}

/// Value i of a stream, uniform in [−1, 1).
float uniform(std::uint64_t stream, std::uint64_t i) {
  std::uint64_t bits = (stream << 40U) + i + 0x9e3779b97f4a7c15U; // splitmix64
  bits = (bits ^ bits >> 30U) * 0xbf58476d1ce4e5b9U;
  bits = (bits ^ bits >> 27U) * 0x94d049bb133111ebU;
  return static_cast<float>(bits >> 40U) * 0x1p-23F - 1.0F;
}

class checkpoint_maker {
public:
  /// Weights of bfloat16 with variance 1/columns, made row by row while the file is written.
  void write(const model_shape& shape, std::size_t experts, double kept, const std::string& path) {
    io::ragged_layer layer{
        .prefix = "", .d_model = shape.d_model, .reason = {"pruned", "at random", std::string(shape.name)}};
    layer.tensors = {"router.weight"};
    for (const std::size_t h : pruned_widths(shape, experts, kept)) {
      const std::size_t e = layer.experts.size(), d = shape.d_model;
      io::ragged_expert& expert = layer.experts.emplace_back();
      expert.kind = h == 0 ? "vector" : shape.gpt_oss ? "glu.gpt_oss" : "glu.silu";
      expert.width = h;
      const auto add = [&](const char* name, std::size_t rows, std::size_t cols) {
        expert.tensors.emplace_back(name);
        expert.format = "BF16";
        add_matrix<bfloat16>(parameter_info{.name = name, .expert = e}.full_name(), rows, cols);
      };
      if (h != 0) {
        add("gate", h, d);
        add("up", h, d);
        add("down", d, h);
      }
      if (h != 0 && shape.gpt_oss) {
        add("gate_bias", 1, h);
        add("up_bias", 1, h);
      }
      if (shape.gpt_oss)
        add("down_bias", 1, d);
    }
    add_matrix<float>("router.weight", experts, shape.d_model);
    io::ragged_manifest manifest;
    manifest.layers.push_back(std::move(layer));
    writer_.set_metadata(io::ragged_manifest::key, manifest.to_json());
    writer_.write(path);
  }

private:
  template <class T> void add_matrix(const std::string& name, std::size_t rows, std::size_t cols) {
    const float scale = std::sqrt(3.0F / static_cast<float>(cols));
    writer_.add(name, io::tensor_type_of<T>, {rows, cols}, rows, cols * sizeof(T),
                [scale, cols, stream = streams_++](std::size_t row, std::span<std::byte> to) {
                  for (std::size_t c = 0; c < cols; ++c) {
                    const T value(scale * uniform(stream, row * cols + c));
                    std::memcpy(to.data() + c * sizeof(T), &value, sizeof(T));
                  }
                });
  }

  io::safetensors_writer writer_;
  std::uint64_t streams_ = 0;
};

/// As many of the shape's experts as leave room in memory and on the disk, at most all.
std::size_t experts_that_fit(const model_shape& shape, double kept, const std::filesystem::path& folder) {
  const double weights = 3.0 * static_cast<double>(shape.width * shape.d_model) * kept;
  double fit = static_cast<double>(shape.experts);
  if (const double memory = bytes_in("/proc/meminfo", "MemAvailable"); memory > 0)
    fit = std::min(fit, 0.5 * memory / (weights * (sizeof(float) + sizeof(bfloat16))));
  std::error_code error;
  if (const auto space = std::filesystem::space(folder, error); !error)
    fit = std::min(fit, 0.9 * static_cast<double>(space.available) / (weights * sizeof(bfloat16)));
  require(fit >= static_cast<double>(shape.k), shape.name, " needs memory and disk for ", shape.k,
          " experts at least; take a smaller --shape");
  return static_cast<std::size_t>(fit);
}

// The packed layer.

using context_type = context<simd<>, executors::openmp>;
using router_type = routing::top_k_router<float>;

/// A packed bank of a type that is known at run time only: everything else here is compiled once.
class packed_experts {
public:
  using value_type = float;
  using dry_type = dry_context<context_type>;
  using rows_type = vector_view<const expert_rows<float>>;
  static constexpr bool observes_stages = true;

  template <class Bank>
  explicit packed_experts(Bank packed) : d_model_(packed.d_model()), format_(Bank::layout().format) {
    for (std::size_t e = 0; e < packed.size(); ++e)
      experts_.push_back({packed.width(e), packed.parameter_count(e), packed.bytes(e), packed.flops_per_row(e)});
    const auto bank = std::make_shared<const Bank>(std::move(packed));
    forward_ = [bank](const context_type& ctx, rows_type rows) { bank->forward_rows(ctx, rows); };
    lay_out_ = [bank](const dry_type& dry, const row_limits& limits) { bank->lay_out_forward_rows(dry, limits); };
  }

  [[nodiscard]] std::size_t size() const { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const { return experts_[e].width; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const { return experts_[e].parameters; }
  [[nodiscard]] std::size_t bytes(std::size_t e) const { return experts_[e].bytes; }
  [[nodiscard]] double flops_per_row(std::size_t e) const { return experts_[e].flops; }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) { return 0; }
  [[nodiscard]] std::string_view format() const { return format_; }

  template <class Context> void forward_rows(const Context& ctx, rows_type rows) const {
    if constexpr (std::same_as<Context, context_type>) // nothing is computed in the other, a dry one
      forward_(ctx, rows);
  }
  void lay_out_forward_rows(const dry_type& dry, const row_limits& limits) const { lay_out_(dry, limits); }

private:
  struct expert {
    std::size_t width, parameters, bytes;
    double flops;
  };
  std::size_t d_model_;
  std::string_view format_;
  std::vector<expert> experts_;
  std::function<void(const context_type&, rows_type)> forward_;
  std::function<void(const dry_type&, const row_limits&)> lay_out_;
};
using layer_type = moe_layer<expert_set<packed_experts>, router_type, dispatch::scattered>;

/// f.template operator()<Format>() for the format of that name.
template <class F> auto with_format(std::string_view name, F&& f) {
  if (name == "f32")
    return f.template operator()<formats::f32>();
  if (name == "bf16")
    return f.template operator()<formats::bf16>();
  if (name == "q8")
    return f.template operator()<formats::q8>();
  if (name == "q4")
    return f.template operator()<formats::q4>();
  require(name == "mxfp4", "the format is \"", name, "\": possible are f32, bf16, q8, q4, mxfp4");
  return f.template operator()<formats::mxfp4>();
}

template <class Format, class Gate>
layer_type pack(const experts::weight_source auto& source, router_type router, const options& chosen) {
  moe_layer layer{expert_set{simd<>::pack<Format>(source, Gate{})}, std::move(router), dispatch::scattered{}};
  if (!chosen.save.empty()) {
    io::packed_checkpoint_writer writer;
    writer.add(layer, chosen.prefix);
    writer.write(chosen.save);
  }
  auto& bank = layer.experts().template bank<0>();
  return {expert_set{packed_experts(std::move(bank))}, layer.router(), layer.dispatch_strategy()};
}
/// The layer's experts as floats with the neurons that matter most to a batch of random tokens (compress/).
template <class Bank>
Bank pruned(const io::safetensors_file& file, const io::ragged_layer& stored, const router_type& router,
            const options& chosen) {
  const bool has_biases = std::ranges::any_of(stored.experts, [](const io::ragged_expert& e) {
    return std::ranges::find(e.tensors, "down_bias") != e.tensors.end();
  });
  auto bank = [&] {
    if constexpr (std::same_as<Bank, experts::gpt_oss_glu_bank<float>>)
      return Bank(stored.d_model, stored.widths());
    else
      return Bank(stored.d_model, stored.widths(), has_biases ? experts::biases::all : experts::biases::none);
  }();
  moe_layer layer{expert_set{std::move(bank)}, router, dispatch::sorted<>{}};
  io::load_ragged_layer(file, layer, chosen.prefix);
  const context_type ctx{simd<>{}, executors::openmp{chosen.threads}};
  matrix<float> x(std::max<std::size_t>(chosen.tokens, 256), layer.d_model()), y(x.rows(), x.cols());
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(ctx, x, y, tape);
  compress::calibration sums{layer};
  sums.add(layer, tape);
  auto result = compress::prune_neurons(layer, compress::magnitude_times_activation(layer, sums), sums,
                                        {.share = static_cast<double>(chosen.prune) / 100});
  const auto& change = result.measure(ctx, layer, x);
  std::cout << "pruned from " << static_cast<double>(result.report.parameters_before) / 1e6 << " to "
            << static_cast<double>(result.report.parameters) / 1e6
            << " million parameters; relative change of the output on random tokens " << change.relative() << "\n";
  return std::move(result.layer.experts().template bank<0>());
}

layer_type pack(const io::safetensors_file& file, const options& chosen) {
  const io::ragged_manifest manifest = io::read_ragged_manifest(file);
  const io::ragged_layer* layer = manifest.find(chosen.prefix);
  require(layer != nullptr, file.name(), " has no layer with the prefix \"", chosen.prefix, "\"");
  const auto kept = std::ranges::find_if(layer->experts, [](const io::ragged_expert& e) { return e.width != 0; });
  require(kept != layer->experts.end(), file.name(), ": all experts of the layer have width 0");
  const bool gpt_oss = kept->kind == "glu.gpt_oss";
  require(gpt_oss || kept->kind == "glu.silu", file.name(), ": its experts are of the kind \"", kept->kind,
          "\": this example runs glu.silu and glu.gpt_oss");
  router_type router(layer->d_model, layer->experts.size(), chosen.k);
  router.visit_parameters(
      [&](const parameter_info& info, matrix_view<float> to) { file.at(chosen.prefix + info.full_name()).read(to); });
  const auto pack_source = [&](const experts::weight_source auto& source) {
    return with_format(chosen.format, [&]<class Format>() {
      return gpt_oss ? pack<Format, experts::gpt_oss_gate>(source, router, chosen)
                     : pack<Format, experts::silu>(source, router, chosen);
    });
  };
  if (chosen.prune != 0) {
    if (gpt_oss)
      return pack_source(
          experts::weights_in_memory(pruned<experts::gpt_oss_glu_bank<float>>(file, *layer, router, chosen).weights()));
    return pack_source(experts::weights_in_memory(
        pruned<experts::glu_bank<float, experts::silu>>(file, *layer, router, chosen).weights()));
  }
  // Panel by panel: the layer is never in memory as floats.
  return pack_source(io::ragged_experts<2>(file, chosen.prefix, kept->kind));
}
layer_type map(const io::packed_checkpoint& file, const options& chosen) {
  const io::packed_layer_entry& layer = file.layer(chosen.prefix);
  require(layer.banks.size() == 1, "the layer has ", layer.banks.size(), " banks, this example runs layers of one");
  router_type router(layer.d_model, layer.banks[0].ids.size(), chosen.k);
  file.read_parameters(chosen.prefix, io::packed_checkpoint::no_bank, router);
  const auto bank_of = [&]<class Format, class Gate>() {
    using bank = simd<>::packed_glu<Format, Gate>;
    return packed_experts(file.bank<bank>(chosen.prefix, 0));
  };
  auto bank = with_format(layer.banks[0].format, [&]<class Format>() {
    return layer.banks[0].kind == "glu.gpt_oss" ? bank_of.template operator()<Format, experts::gpt_oss_gate>()
                                                : bank_of.template operator()<Format, experts::silu>();
  });
  return {expert_set{std::move(bank)}, std::move(router), dispatch::scattered{}};
}

// What is told.

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
/// The median of some calls behind one that is not counted.
template <class F> double median_seconds(std::size_t repeats, F&& f) {
  f();
  std::vector<double> all(repeats);
  for (double& seconds : all) {
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds = seconds_since(start);
  }
  std::ranges::nth_element(all, all.begin() + static_cast<std::ptrdiff_t>(repeats / 2));
  return all[repeats / 2];
}

void print_structure(const layer_type& layer) {
  const auto& experts = layer.experts();
  std::size_t least = experts.width(0), most = least, none = 0, total = 0, parameters = 0;
  for (std::size_t e = 0; e < layer.size(); ++e) {
    const std::size_t h = experts.width(e);
    least = std::min(least, h);
    most = std::max(most, h);
    none += h == 0 ? 1 : 0;
    total += h;
    parameters += experts.parameter_count(e);
  }
  const double mean = static_cast<double>(total) / static_cast<double>(layer.size());
  std::cout << "layer: " << layer.size() << " experts, d_model " << layer.d_model() << ", widths " << least << " to "
            << most << ", mean " << mean << ", " << none << " of width 0; " << static_cast<double>(parameters) / 1e6
            << " million parameters as " << experts.bank<0>().format() << "; padded to the widest they were "
            << static_cast<double>(most) / mean << " times as many\n";
}

void print_load(const layer_type& layer, const statistics::expert_load& load) {
  std::cout << "load, as expert:width:tokens\n";
  for (std::size_t e = 0; e < layer.size(); ++e) {
    std::ostringstream text;
    text << e << ':' << layer.experts().width(e) << ':' << load.tokens_per_expert[e];
    std::cout << "  " << std::left << std::setw(14) << text.str() << (e % 8 == 7 || e + 1 == layer.size() ? "\n" : "");
  }
}

/// Seconds of one expert that does for each token as many multiply-adds as the layer's experts in the mean: what
/// remains when there is nothing to choose, and no matrix is small.
double dense_seconds(const options& chosen, const context_type& ctx, std::size_t width, matrix_view<const float> x,
                     matrix_view<float> y, std::string_view format) {
  experts::glu_bank<float, experts::silu> bank(x.cols(), {width});
  bank.initialize(seed{3}, 0, {});
  const auto dense = with_format(format, [&]<class Format>() { return packed_experts(simd<>::pack<Format>(bank)); });
  const expert_rows<float> all{0, x.rows(), x, y};
  return median_seconds(chosen.repeats, [&] {
    const workspace::scope scope(ctx.workspace());
    dense.forward_rows(ctx, {&all, 1});
  });
}

void run(const options& chosen, const layer_type& layer) {
  print_structure(layer);
  const context_type ctx{simd<>{}, executors::openmp{chosen.threads}};
  matrix<float> x(chosen.tokens, layer.d_model()), y(chosen.tokens, layer.d_model());
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{1}, 0);
  const std::size_t workspace = layer.workspace_bytes(ctx, chosen.tokens);
  const double seconds = median_seconds(chosen.repeats, [&] { layer.forward(ctx, x, y); });

  auto tape = layer.make_tape(chosen.tokens);
  layer.forward(ctx, x, y, tape);
  statistics::expert_load load(layer.size());
  load.add(std::as_const(tape).assignment());
  print_load(layer, load);
  if (!chosen.trace.empty()) {
    io::routing_text_writer<float> writer(chosen.trace);
    writer.add(io::make_routing_log_record(tape, layer.size()));
    writer.close();
  }

  double flops = 0, widths = 0, packed = 0, used = 0, most = 0;
  for (std::size_t e = 0; e < layer.size(); ++e) {
    const auto tokens = static_cast<double>(load.tokens_per_expert[e]);
    flops += tokens * layer.experts().flops_per_row(e);
    widths += tokens * static_cast<double>(layer.experts().width(e));
    packed += static_cast<double>(layer.experts().bytes(e));
    used += tokens == 0 ? 0 : static_cast<double>(layer.experts().bytes(e));
    most = std::max(most, layer.experts().flops_per_row(e));
  }
  const auto tokens = static_cast<double>(chosen.tokens);
  std::cout << "time: " << seconds * 1e3 << " ms for " << chosen.tokens << " tokens with " << chosen.threads
            << " threads, " << tokens / seconds << " tokens/s, " << flops / seconds / 1e9 << " GFLOP/s, "
            << used / seconds / 1e9 << " GB/s of weights\n";
  if (const auto width = static_cast<std::size_t>(widths / tokens); width != 0) {
    const double dense = dense_seconds(chosen, ctx, width, x, y, layer.experts().bank<0>().format());
    std::cout << "efficiency: " << 100 * dense / seconds << " % of one expert of the activated width " << width
              << " for all tokens; with all experts padded to the widest there were "
              << most * static_cast<double>(load.activations()) / flops << " times as many operations\n";
  }
  std::cout << "memory: planned " << megabytes(packed) << " of packed weights, "
            << megabytes(static_cast<double>(workspace)) << " of workspace; in use beside mapped files "
            << megabytes(bytes_in("/proc/self/status", "RssAnon")) << ", peak with pages of mapped files "
            << megabytes(bytes_in("/proc/self/status", "VmHWM")) << "\n";
}

void run(const options& chosen) {
  const auto start = std::chrono::steady_clock::now();
  std::string path = chosen.file;
  std::optional<io::safetensors_file> file;
  if (path.empty()) {
    const auto folder = chosen.make.empty() ? std::filesystem::temp_directory_path()
                                            : std::filesystem::absolute(chosen.make).parent_path();
    const double kept = static_cast<double>(chosen.kept) / 100;
    const std::size_t experts = experts_that_fit(*chosen.shape, kept, folder);
    path = chosen.make.empty()
               ? (folder / ("hmoe_run_checkpoint_" + std::to_string(start.time_since_epoch().count()))).string()
               : chosen.make;
    checkpoint_maker().write(*chosen.shape, experts, kept, path);
    std::cout << "made " << path << ": " << chosen.shape->name << ", " << experts << " of " << chosen.shape->experts
              << " experts, " << chosen.kept << " % of the neurons, in " << seconds_since(start) << " s\n";
    file.emplace(path);
    if (chosen.make.empty())
      std::filesystem::remove(path); // mapped, it is there until the program ends
  } else {
    file.emplace(path);
  }
  const auto begin = std::chrono::steady_clock::now();
  const bool packed = file->metadata(io::packed_manifest::key) != nullptr;
  const layer_type layer = packed ? map(io::packed_checkpoint(path), chosen) : pack(*file, chosen);
  std::cout << (packed ? "mapped in " : "packed in ") << seconds_since(begin) << " s; in use beside mapped files "
            << megabytes(bytes_in("/proc/self/status", "RssAnon")) << "\n";
  run(chosen, layer);
}

} // namespace

int main(int count, char** values) {
  if (count == 2 && std::string_view(values[1]) == "--help") {
    std::cout << usage;
    return 0;
  }
  try {
    run(parse(count, values));
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
