// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/io/any_packed_bank.hpp>
#include <hmoe/io/format_list.hpp>
#include <hmoe/layer/any_layer.hpp>

#include "options.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace run_checkpoint {

using context_type = hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp>;
using layer_type = hmoe::any_layer<context_type>;
using packed_type = hmoe::io::any_packed_bank<context_type>;
namespace formats = hmoe::backends::formats;
using all_formats = hmoe::io::format_list<formats::f32, formats::bf16, formats::q8, formats::q4, formats::mxfp4>;

struct opened_layer {
  layer_type layer;
  std::string format; ///< of the packed weights
  bool mapped;        ///< where a file has them
};
/// The layer of a checkpoint, packed in the format of the options: a model folder, a file of unequal experts, or one of
/// packed experts, which is mapped. Saves it where the options say so. hmoe::error where the file is none of these.
opened_layer open_layer(const options& chosen, const std::string& path);

/// One SwiGLU expert of random weights.
packed_type dense_expert(std::size_t d_model, std::size_t width, std::string_view format);

} // namespace run_checkpoint
