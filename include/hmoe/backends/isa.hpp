// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// One program for every CPU: kernels compiled once per instruction-set level, the best one picked at run time. The
/// levels are built by hmoe_add_isa(<target> ...) in CMake; see docs/isa.md.
namespace hmoe::isa {

/// Instruction-set levels, each with all that is in the one before. v2 to v4 are those of the x86-64 ABI; v4_bf16 adds
/// AVX-512 BF16 and VNNI. `base` is what the compiler's flags allow anyway, the only level away from x86-64.
enum class level { base, v2, v3, v4, v4_bf16 };
inline constexpr level all_levels[] = {level::base, level::v2, level::v3, level::v4, level::v4_bf16};

/// The word for it in CMake and in the environment variable HMOE_ISA.
[[nodiscard]] constexpr std::string_view name(level which) noexcept {
  constexpr std::string_view names[] = {"base", "v2", "v3", "v4", "v4_bf16"};
  return names[static_cast<int>(which)];
}
/// The words for it in a message.
[[nodiscard]] constexpr std::string_view long_name(level which) noexcept {
  constexpr std::string_view names[] = {"the baseline", "x86-64-v2", "x86-64-v3", "x86-64-v4",
                                        "x86-64-v4 with BF16 and VNNI"};
  return names[static_cast<int>(which)];
}

namespace detail {

#if defined(__x86_64__)
/// Register ecx of cpuid: features that use no registers which an operating system would have to save.
[[nodiscard]] inline bool cpuid_ecx_has(unsigned leaf, unsigned bits) noexcept {
  unsigned highest = leaf & 0x80000000U, ecx = 0;
  [[maybe_unused]] unsigned ebx, edx;
  __asm__("cpuid" : "+a"(highest), "=b"(ebx), "+c"(ecx), "=d"(edx));
  if (highest < leaf)
    return false;
  ecx = 0;
  __asm__("cpuid" : "+a"(leaf), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (ecx & bits) == bits;
}

/// Whether this level's own additions are there. __builtin_cpu_supports also asks whether the operating system saves
/// the registers of AVX and AVX-512.
[[nodiscard]] inline bool cpu_has(level which) noexcept {
  switch (which) {
  case level::base:
    return true;
  case level::v2: // and CMPXCHG16B; LAHF
    return __builtin_cpu_supports("sse3") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
           __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") && cpuid_ecx_has(1, 1U << 13) &&
           cpuid_ecx_has(0x80000001U, 1U);
  case level::v3: // and MOVBE, F16C; LZCNT
    return __builtin_cpu_supports("avx") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && cpuid_ecx_has(1, 1U << 22 | 1U << 29) &&
           cpuid_ecx_has(0x80000001U, 1U << 5);
  case level::v4:
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  case level::v4_bf16:
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}
#else
[[nodiscard]] inline bool cpu_has(level which) noexcept { return which == level::base; }
#endif

/// A function's form for one level; the table that hmoe_add_isa makes ends with a null pointer.
struct entry {
  isa::level level;
  void (*function)();
};

template <class Name> [[nodiscard]] std::string join(std::span<const level> levels, Name name_of) {
  std::string text;
  for (const level each : levels)
    text.append(text.empty() ? "" : ", ").append(name_of(each));
  return text;
}

/// The level to run, of those `built` (at least one), on a CPU that has those up to `cpu`: the best, or the one that
/// `wanted` (HMOE_ISA) names. hmoe::error if there is none.
[[nodiscard]] inline level choose(std::span<const level> built, level cpu, std::string_view wanted) {
  std::optional<level> chosen;
  for (const level each : built)
    if (wanted.empty() ? each <= cpu && (!chosen || *chosen < each) : name(each) == wanted)
      chosen = each;
  require(chosen.has_value() || wanted.empty(), "HMOE_ISA=", wanted,
          " is none of the instruction-set levels that this program was built for: ", join(built, name));
  require(chosen.has_value(), "this CPU supports up to ", long_name(cpu), ", the program was built for ",
          join(built, long_name));
  require(*chosen <= cpu, "HMOE_ISA=", wanted, " asks for ", long_name(*chosen), ", but this CPU supports up to ",
          long_name(cpu));
  return *chosen;
}

} // namespace detail

/// The best level that this CPU and the operating system support.
[[nodiscard]] inline level cpu_level() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  level best = level::base;
  for (const level each : all_levels) {
    if (!detail::cpu_has(each))
      break;
    best = each;
  }
  return best;
}

/// A function that was built for several levels; HMOE_ISA_FUNCTION makes it.
template <class Signature> class function {
public:
  explicit constexpr function(const detail::entry* entries) noexcept : entries_(entries) {}

  /// The levels that it was built for, lowest first.
  [[nodiscard]] std::vector<level> levels() const {
    std::vector<level> built;
    for (const detail::entry* each = entries_; each->function != nullptr; ++each)
      built.push_back(each->level);
    return built;
  }
  /// Its form for that level, which the CPU must support; null if it was not built for it.
  [[nodiscard]] Signature* form(level which) const noexcept {
    for (const detail::entry* each = entries_; each->function != nullptr; ++each)
      if (each->level == which)
        return reinterpret_cast<Signature*>(each->function);
    return nullptr;
  }

private:
  const detail::entry* entries_;
};

/// The level that `select` takes: the best that the function was built for and this CPU has, or the one that the
/// environment variable HMOE_ISA names (v2, v3, ...). hmoe::error if the CPU has none of them, or not the one named.
template <class Signature> [[nodiscard]] level selected_level(const function<Signature>& built) {
  const char* wanted = std::getenv("HMOE_ISA");
  return detail::choose(built.levels(), cpu_level(), wanted == nullptr ? "" : wanted);
}

/// The function's form for this CPU, as selected_level says.
template <class Signature> [[nodiscard]] Signature* select(const function<Signature>& built) {
  return built.form(selected_level(built));
}

} // namespace hmoe::isa

/// HMOE_ISA_FUNCTION(name, signature); in a header that the kernels and their callers include. Where hmoe_add_isa
/// compiles a kernel, HMOE_ISA is the name of its level and this declares the function HMOE_ISA::name, which the kernel
/// defines; everywhere else `name` is the hmoe::isa::function to select from.
#ifdef HMOE_ISA
#define HMOE_DETAIL_ISA_TEXT(text) #text
#define HMOE_DETAIL_ISA_SYMBOL(name, level) HMOE_DETAIL_ISA_TEXT(hmoe_isa_##name##_##level)
#define HMOE_DETAIL_ISA_DECLARE(name, level, ...)                                                                      \
  namespace level {                                                                                                    \
  using name##_signature = __VA_ARGS__;                                                                                \
  extern name##_signature name __asm__(HMOE_DETAIL_ISA_SYMBOL(name, level));                                           \
  }                                                                                                                    \
  static_assert(true)
#define HMOE_DETAIL_ISA_EXPAND(name, level, ...) HMOE_DETAIL_ISA_DECLARE(name, level, __VA_ARGS__)
#define HMOE_ISA_FUNCTION(name, ...) HMOE_DETAIL_ISA_EXPAND(name, HMOE_ISA, __VA_ARGS__)
#else
#define HMOE_ISA_FUNCTION(name, ...)                                                                                   \
  extern "C" const ::hmoe::isa::detail::entry hmoe_isa_##name[];                                                       \
  inline constexpr ::hmoe::isa::function<__VA_ARGS__> name(hmoe_isa_##name)
#endif

#include <hmoe/core/macros_on.hpp>
