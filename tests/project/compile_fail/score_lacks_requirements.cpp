// SPDX-License-Identifier: MIT
// expect: hmoe::routing::noisy: Score does not model hmoe::score
// expect: hmoe::routing::router: Score does not model hmoe::score: it needs value_type, d_model
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/noisy.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using score_type = routing::linear<float>;
#else
struct score_type { // forgets saved_per_token and all after it
  using value_type = float;
  score_type(std::size_t, std::size_t) {}
  std::size_t d_model() const { return 1; }
  std::size_t size() const { return 1; }
};
#endif

routing::router<score_type, routing::top_k<>> plain(1, 1, 1);
routing::noisy<score_type> wrapped(1, 1);
