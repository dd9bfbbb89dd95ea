// SPDX-License-Identifier: MIT
// expect: hmoe::dispatch: Order does not model hmoe::drop_order: it needs priority\(tape, token, entry\) const
// .* pass for instance capacity::keep_first\{\}
#include <hmoe/dispatch/padded.hpp>

using namespace hmoe;

struct keep_even {
#ifdef HMOE_MUST_COMPILE
  template <class T> double priority(const tape<T>&, std::size_t token, std::size_t) const {
    return token % 2 == 0 ? 1 : 0;
  }
#else
  bool operator()(std::size_t token) const { return token % 2 == 0; }
#endif
};

inline const dispatch::padded drops{capacity::by_factor{1.25}, keep_even{}};
