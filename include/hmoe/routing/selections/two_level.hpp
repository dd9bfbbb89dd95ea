// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <algorithm>
#include <string>

namespace hmoe::routing {

/// First groups, then experts: a group counts the sum of its experts' probabilities; of each of the `groups_per_token`
/// best groups the `experts_per_group` best experts are chosen (all, where it has fewer). Groups are runs of
/// consecutive experts and may be of unequal size, as in a layer that groups its experts by width (MoHGE). Ties to the
/// lower id.
class two_level {
public:
  static constexpr std::size_t most_groups = 64;

  two_level(vector_view<const std::size_t> group_sizes, std::size_t groups_per_token, std::size_t experts_per_group)
      : groups_(group_sizes.size()), groups_per_token_(groups_per_token), experts_per_group_(experts_per_group) {
    require(groups_ >= 1 && groups_ <= most_groups, "two_level with ", groups_, " groups: possible are 1 to ",
            most_groups);
    for (std::size_t g = 0; g < groups_; ++g) {
      require(group_sizes[g] >= 1, "two_level: group ", g, " is empty");
      ends_[g] = static_cast<index_t>(begin(g) + group_sizes[g]);
      largest_ = std::max(largest_, group_sizes[g]);
    }
    require(groups_per_token >= 1 && groups_per_token <= groups_, "two_level picks ", groups_per_token, " of ", groups_,
            " groups: it must be 1 to ", groups_);
    require(experts_per_group >= 1 && experts_per_group <= largest_, "two_level picks ", experts_per_group,
            " experts of each group: it must be 1 to ", largest_, ", the size of the largest group");
  }

  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t max_selected(std::size_t experts) const noexcept {
    const std::size_t most = groups_per_token_ * experts_per_group_;
    return most < experts ? most : experts;
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t scratch_size(std::size_t) const noexcept { return groups_; }
  /// The sizes of the groups, and how many groups and experts of each are chosen.
  [[nodiscard]] std::string identity() const {
    std::string text = "groups of";
    for (std::size_t g = 0; g < groups_; ++g)
      text.append(" ").append(std::to_string(ends_[g] - begin(g)));
    return text.append("; groups_per_token = ").append(std::to_string(groups_per_token_)) +
           " experts_per_group = " + std::to_string(experts_per_group_);
  }
  void validate(std::size_t experts) const {
    require(begin(groups_) == experts, "two_level: the groups hold ", begin(groups_), " experts, there are ", experts);
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen,
                                                    vector_view<T> scratch) const noexcept {
    const vector_view<T> scores = scratch.subview(0, groups_);
    for (std::size_t g = 0; g < groups_; ++g) {
      scores[g] = 0;
      bool any = false;
      for (const T value : experts_of(p, g))
        if (value != least_preferred<T>) { // else it is out of service
          scores[g] += value;
          any = true;
        }
      if (!any)
        scores[g] = least_preferred<T>;
    }
    std::size_t count = 0;
    index_t group = no_index;
    for (std::size_t i = 0; i < groups_per_token_; ++i) {
      group = next_preferred(vector_view<const T>(scores), group);
      const vector_view<const T> members = experts_of(p, group);
      index_t last = no_index;
      for (std::size_t j = 0; j < experts_per_group_ && j < members.size(); ++j) {
        last = next_preferred(members, last);
        chosen[count++] = static_cast<index_t>(begin(group) + last);
      }
    }
    return count;
  }

private:
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t begin(std::size_t group) const noexcept {
    return group == 0 ? 0 : ends_[group - 1];
  }
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE constexpr vector_view<const T> experts_of(vector_view<const T> p,
                                                                           std::size_t group) const noexcept {
    return p.subview(begin(group), ends_[group] - begin(group));
  }

  index_t ends_[most_groups] = {};
  std::size_t groups_, groups_per_token_, experts_per_group_, largest_ = 0;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
