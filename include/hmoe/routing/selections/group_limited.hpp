// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

namespace hmoe::routing {

/// How a group of experts is valued: by its best expert (DeepSeek-V2), or by the sum of its two best (DeepSeek-V3).
enum class group_score { best, best_two };

/// What experts of other groups count as. `excluded`: they cannot be chosen (−∞, as the authors' code, Megatron-LM,
/// llama.cpp and today's Hugging Face transformers have it). `zero`: their value is 0, so that they are chosen before
/// kept experts of negative value, which a selection bias can make (transformers before its issue 45440 was solved).
enum class group_mask { excluded, zero };

/// The k best experts of the `kept` best of `groups` equal groups of consecutive experts, which bounds how many devices
/// a token travels to (DeepSeek-V2, arXiv 2405.04434, section 2.2.2; DeepSeek-V3, arXiv 2412.19437). Ties go to the
/// lower group and the lower id. Experts of value −∞ are out of service: a group counts without them. All three numbers
/// are constants of the model and must be given: {.groups = 8, .kept = 4, .k = 8}, or 1 group of which 1 is kept.
template <group_score Score = group_score::best_two, group_mask Mask = group_mask::excluded> struct group_limited {
  std::size_t groups = 0; ///< 0: not given, an hmoe::error; so for the others
  std::size_t kept = 0;
  std::size_t k = 0;

  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t max_selected(std::size_t) const noexcept { return k; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t scratch_size(std::size_t experts) const noexcept {
    return experts + groups;
  }
  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("k", k);
    visit("groups", groups);
    visit("kept", kept);
  }
  void validate(std::size_t experts) const {
    require(groups != 0 && kept != 0 && k != 0, "group_limited with groups = ", groups, ", kept = ", kept,
            " and k = ", k, ": give all three, as in {.groups = 8, .kept = 4, .k = 8}");
    require(experts % groups == 0, "group_limited with ", groups, " groups for ", experts,
            " experts: the groups must be equal");
    require(kept <= groups, "group_limited keeps ", kept, " of ", groups, " groups: it must be 1 to ", groups);
    const std::size_t available = Mask == group_mask::zero ? experts : kept * (experts / groups);
    require(k <= available, "group_limited with k = ", k, " of ", available, " experts in ", kept,
            " groups: k must be 1 to ", available);
    require(Score != group_score::best_two || experts / groups >= 2, "group_limited by the two best of groups of ",
            experts / groups, " expert: use group_score::best, or at most ", experts / 2, " groups");
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen,
                                                    vector_view<T> scratch) const noexcept {
    const std::size_t n = p.size(), size = n / groups;
    const vector_view<T> values = scratch.subview(0, n), scores = scratch.subview(n, groups);
    for (std::size_t e = 0; e < n; ++e)
      values[e] = Mask == group_mask::zero && p[e] != least_preferred<T> ? T(0) : least_preferred<T>;
    for (std::size_t g = 0; g < groups; ++g)
      scores[g] = value_of(p.subview(g * size, size));
    index_t group = no_index;
    for (std::size_t i = 0; i < kept; ++i) {
      group = next_preferred(vector_view<const T>(scores), group);
      for (std::size_t e = group * size; e < (group + 1) * size; ++e)
        values[e] = p[e];
    }
    index_t last = no_index;
    for (std::size_t i = 0; i < k; ++i)
      chosen[i] = last = next_preferred(vector_view<const T>(values), last);
    return k;
  }

private:
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE static constexpr T value_of(vector_view<const T> group) noexcept {
    const index_t first = next_preferred(group, no_index);
    if constexpr (Score == group_score::best)
      return group[first];
    else {
      const T second = group[next_preferred(group, first)];
      return second == least_preferred<T> ? group[first] : group[first] + second;
    }
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
