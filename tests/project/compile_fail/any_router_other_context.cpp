// SPDX-License-Identifier: MIT
// expect: hmoe::routing::any_router: this router runs in contexts of its type Context only, which its passes were compiled for: use a context of this type, or any_router<T, Context> with the type of yours
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/any_router.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using context_type = context<backends::reference>;
#else
struct backend_of_mine : backends::reference {};
using context_type = context<backend_of_mine>;
#endif

using chosen = routing::any_router<float, context<backends::reference>>;

void run(const context_type& ctx, const chosen& router, matrix_view<const float> x, router_trace<float>& trace,
         assignment<float>& assigned) {
  router.forward(ctx, x, trace, assigned);
}
