// SPDX-License-Identifier: MIT
// oneDNN's matmul, expert by expert. Weights are reordered once into the layout that it asks for.
#include "competitors.hpp"
#include "per_expert.hpp"

#include <dnnl.hpp>
#include <omp.h>

#include <map>
#include <tuple>
#include <unordered_map>

namespace benchmarks::competitors {

namespace {

class onednn_product {
public:
  static void set_threads(int threads) { omp_set_num_threads(threads); } // its threads are OpenMP's

  void prepare(hmoe::matrix_view<const float> w) {
    using tag = dnnl::memory::format_tag;
    const dims shape{size(w.cols()), size(w.rows())};
    // The layout that it prefers depends on the number of rows; 64 stand for them all.
    const dnnl::matmul::desc wanted({{64, shape[0]}, type, tag::ab}, {shape, type, tag::any},
                                    {{64, shape[1]}, type, tag::ab});
    const dnnl::memory::desc layout = dnnl::matmul::primitive_desc(wanted, engine_).weights_desc();
    dnnl::memory from({shape, type, dims{1, size(w.stride())}}, engine_, const_cast<float*>(w.data()));
    dnnl::memory to(layout, engine_);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    packed_.emplace(w.data(), to);
  }

  void operator()(hmoe::matrix_view<const float> a, hmoe::matrix_view<const float> w, hmoe::matrix_view<float> c) {
    dnnl::memory& weights = packed_.at(w.data());
    const dnnl::memory::desc in({size(a.rows()), size(a.cols())}, type, dims{size(a.stride()), 1});
    const dnnl::memory::desc out({size(c.rows()), size(c.cols())}, type, dims{size(c.stride()), 1});
    auto& product = products_[{a.rows(), a.cols(), w.rows(), omp_get_max_threads()}];
    if (!product)
      product = dnnl::matmul(dnnl::matmul::primitive_desc({in, weights.get_desc(), out}, engine_));
    product.execute(stream_, {{DNNL_ARG_SRC, dnnl::memory(in, engine_, const_cast<float*>(a.data()))},
                              {DNNL_ARG_WEIGHTS, weights},
                              {DNNL_ARG_DST, dnnl::memory(out, engine_, c.data())}});
    stream_.wait();
  }

private:
  using dims = dnnl::memory::dims;
  static constexpr auto type = dnnl::memory::data_type::f32;
  static dnnl::memory::dim size(std::size_t n) { return static_cast<dnnl::memory::dim>(n); }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<const float*, dnnl::memory> packed_;
  std::map<std::tuple<std::size_t, std::size_t, std::size_t, int>, dnnl::matmul> products_;
};

} // namespace

subject onednn_per_expert() {
  const dnnl_version_t* version = dnnl_version();
  return per_expert_subject<onednn_product>("onednn_per_expert", "oneDNN " + std::to_string(version->major) + "." +
                                                                     std::to_string(version->minor) + "." +
                                                                     std::to_string(version->patch));
}

} // namespace benchmarks::competitors
