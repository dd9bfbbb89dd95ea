// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/widths.hpp>

#include "any_experts.hpp"
#include "loads.hpp"

#include <cstddef>
#include <set>
#include <string>
#include <vector>

namespace benchmarks {

/// Where strategies take turns: all of a cell's name but the strategy.
struct dispatch_point {
  const dispatch_shape* shape;
  std::string format;
  std::size_t tokens;
  std::string load;
  bool training;
  std::size_t threads;

  [[nodiscard]] std::string name(const std::string& strategy) const {
    return "dispatch/" + shape->name + "/" + format + "/" + strategy + "/tokens:" + std::to_string(tokens) + "/" +
           load + (training ? "/training" : "/forward") + "/threads:" + std::to_string(threads);
  }
};

/// The paper's three size strategies beside their equal twin; many narrow experts; a pruned layer; several kinds; two
/// that are held out.
[[nodiscard]] inline const std::vector<dispatch_shape>& dispatch_shapes() {
  using namespace hmoe::widths;
  static const std::vector<dispatch_shape> all{
      {"arithmetic", 768, 2, arithmetic{.count = 8, .total = 12288}},
      {"equal", 768, 2, uniform{.count = 8, .total = 12288}},
      {"geometric", 768, 2, geometric{.count = 8, .total = 12288}},
      {"hybrid", 768, 2, hybrid{.count = 8, .total = 12288}},
      {"experts_64", 768, 8, uniform{.count = 64, .total = 16384}},
      {"experts_128", 768, 8, uniform{.count = 128, .total = 16384}},
      {"pruned", 768, 2, {0, 1408, 64, 704, 0, 1024, 320, 1408, 128, 0, 512, 896, 32, 1216, 256, 640}},
      {"mixed", 768, 2, {864, 1248, 1632, 2016}, {1536, 1536}, 2},
      {"narrow_24", 512, 3, arithmetic{.count = 24, .total = 12288}},
      {"wide_6", 1024, 1, geometric{.count = 6, .total = 9216}},
      {"demo", 64, 2, arithmetic{.count = 8, .total = 1024}}, // small, for a test
  };
  return all;
}

/// Every point that has a name, shape by shape and format by format: those share weights.
[[nodiscard]] inline std::vector<dispatch_point> whole_grid(std::size_t cores) {
  std::vector<dispatch_point> all;
  for (const dispatch_shape& shape : dispatch_shapes())
    for (const char* format : {"f32", "packed_f32", "bf16", "q8", "q4"}) {
      const bool plain = std::string(format) == "f32";
      if (!plain && shape.experts() != shape.widths.size())
        continue;
      for (const bool training : {false, true})
        for (const std::size_t threads : std::set<std::size_t>{1, cores})
          for (const std::string_view load : all_loads)
            for (std::size_t tokens = 1; tokens <= 4096; tokens *= 2)
              if (plain || !training)
                all.push_back({&shape, format, tokens, std::string(load), training, threads});
    }
  return all;
}

[[nodiscard]] inline bool held_out_shape(const dispatch_shape& shape) {
  return shape.name == "narrow_24" || shape.name == "wide_6";
}
/// Whether a point is one that nobody looks at who changes the cost model or a default: another shape, or another load.
[[nodiscard]] inline bool held_out(const dispatch_point& p) {
  return held_out_shape(*p.shape) || p.load == "zipf_0.7" || p.load == "zipf_1.3";
}
/// Which of them are measured without --filter: numbers of tokens between those of the others.
[[nodiscard]] inline bool in_held_out_grid(const dispatch_point& p, bool quick, std::size_t cores) {
  const std::string& shape = p.shape->name;
  const bool between = (p.tokens & 0x0AAAU) != 0 && p.tokens <= (quick ? 512U : 2048U), even = p.load == "uniform";
  if (!between || p.threads != cores || (!held_out_shape(*p.shape) && shape != "arithmetic"))
    return false;
  if (p.training)
    return even && (p.tokens == 32 || p.tokens == 128);
  if (p.format != "f32")
    return even && shape == "narrow_24" && p.format != "packed_f32" && p.tokens <= (quick ? 128U : 512U);
  return even || (p.load == "zipf_1.3" && (!quick || shape != "wide_6")) || (p.load == "zipf_0.7" && !quick);
}

/// Whether a point is measured without --filter: one axis moves at a time, and tokens × load are crossed. The quick
/// form has four shapes and powers of four.
[[nodiscard]] inline bool in_default_grid(const dispatch_point& p, bool quick, std::size_t cores) {
  const std::string& shape = p.shape->name;
  if (held_out(p))
    return in_held_out_grid(p, quick, cores);
  if (shape == "demo")
    return false;
  const bool main_shape = shape == "arithmetic", power_of_four = (p.tokens & 0x1555U) != 0;
  if (!power_of_four || (quick && p.tokens > 1024))
    return false;
  const bool few_loads = p.load == "uniform" || p.load == "zipf_1.0" || p.load == "hot" || p.load == "recorded";
  const bool quick_shape = main_shape || shape == "equal" || shape == "experts_64" || shape == "pruned";
  if (p.format == "f32" && !p.training && p.threads == cores)
    return quick ? quick_shape && few_loads : true;
  if (p.load != "uniform" || (quick && !main_shape))
    return false;
  if (p.training)
    return p.threads == cores && p.tokens >= 16 && p.tokens <= (quick ? 256U : 1024U);
  if (p.threads != cores)
    return p.format == "f32" && (p.tokens <= (quick ? 64U : 4096U));
  return quick ? p.format != "packed_f32" && p.tokens <= 256 : true;
}

} // namespace benchmarks
