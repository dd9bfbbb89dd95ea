// SPDX-License-Identifier: MIT
#include <hmoe/testing/drop_order_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace {
enum class fault { none, drifts, by_type, by_batch, by_address, throws };

/// The heaviest first, NaN for some, with one thing wrong.
struct heaviest {
  fault has = fault::none;
  static inline std::atomic<int> calls = 0;
  template <class T> double priority(const hmoe::tape<T>& tape, std::size_t token, std::size_t entry) const {
    if (has == fault::throws)
      throw std::runtime_error("out of order");
    const auto weight = static_cast<double>(tape.assignment().weights()[entry]);
    if (has == fault::drifts)
      return weight + ++calls;
    if (has == fault::by_type && std::same_as<T, float>)
      return -weight;
    if (has == fault::by_batch)
      return weight / static_cast<double>(tape.assignment().tokens());
    if (has == fault::by_address)
      return static_cast<double>(reinterpret_cast<std::uintptr_t>(&tape) % 4096);
    return token == 3 ? std::nan("") : weight;
  }
};
std::string laws(fault has, const hmoe::testing::drop_order_options& options = {}) {
  return hmoe::testing::check_drop_order(heaviest{has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound order of dropping keeps the laws") { CHECK(laws(fault::none) == ""); }

TEST_CASE("each fault of an order of dropping is named") {
  CHECK(names(laws(fault::drifts), "gives the same priorities every time"));
  CHECK(names(laws(fault::by_type), "float and double are ordered alike: entries 0 and "));
  CHECK(names(laws(fault::by_batch), "does not depend on the tokens behind: in a batch of 1 tokens"));
  CHECK(laws(fault::by_batch, {.token_by_token = false}) == "");
  CHECK(names(laws(fault::by_address), "gives the same priorities every time"));
  CHECK(names(laws(fault::throws), "works without an exception: an exception was thrown: out of order"));
}
