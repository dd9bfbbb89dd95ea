// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/ragged_shards.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>
#include <hmoe/parallel/placement.hpp>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

/// Checkpoints of a layer whose experts are on several ranks: each rank writes a file with its experts, and any number
/// of ranks reads them. All functions are collective, and an error on one rank is an hmoe::error on all.
namespace hmoe::parallel {

/// An optimiser of a layer's tensors, in their order in `list` (moe_layer::append_parameters): its state is saved and
/// loaded with the layer.
template <class T, class Optimizer> struct optimizer_of {
  const std::vector<parameter<T>>& list;
  Optimizer& optimizer;
};
template <class T, class Optimizer>
optimizer_of(const std::vector<parameter<T>>&, Optimizer&) -> optimizer_of<T, Optimizer>;

namespace detail {

inline constexpr const char* steps_key = "optimizer_steps";
/// "optimizer.first_moment.layers.0.experts.3.gate".
[[nodiscard]] inline std::string state_name(std::string_view state, const std::string& tensor) {
  return std::string("optimizer.").append(state).append(".").append(tensor);
}
/// f(i) for each tensor of the list that this rank works with.
template <class T, class F>
void for_own_tensors(const std::vector<parameter<T>>& list, const expert_placement& placed, std::size_t rank, F&& f) {
  for (std::size_t i = 0; i < list.size(); ++i)
    if (!list[i].value.empty() && (list[i].expert == parameter_info::no_expert || placed.has(rank, list[i].expert)))
      f(i);
}
/// The number of steps that the files were saved with. hmoe::error where none has it, or two differ.
[[nodiscard]] inline std::uint64_t steps_in(const io::sharded_safetensors& files) {
  std::uint64_t steps = 0;
  const std::string* before = nullptr;
  for (const io::safetensors_file& file : files.files()) {
    const std::string* text = file.metadata(steps_key);
    if (text == nullptr)
      continue;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), steps);
    require(error == std::errc() && end == text->data() + text->size(), file.name(), ": ", io::in_quotes(*text),
            " is no number of steps");
    require(before == nullptr || *text == *before, files.name(), ": ", steps_key, " is ", io::in_quotes(*text), " in ",
            file.name(), ", ", io::in_quotes(before == nullptr ? "" : *before),
            " in a file before: the files are of different saves");
    before = text;
  }
  require(before != nullptr, files.name(), ": no number of steps under ", steps_key);
  return steps;
}
/// The file of a rank; add(writer, part) adds to it. Until the new index is there, the folder's index names files that
/// are as the save before has left them.
template <communicator Communicator, class Layer, class Add>
void save(const Communicator& ranks, const Layer& layer, const std::string& folder, const std::string& prefix,
          const io::ragged_reason& reason, const Add& add) {
  const char* const who = "save_checkpoint";
  std::vector<std::string> old;
  std::uint64_t number = 0;
  communicators::agree(ranks, exception_of([&] {
                         if (ranks.rank() != 0)
                           return;
                         old = io::shards_of_layer(folder, prefix);
                         for (std::size_t r = 0; r < ranks.size(); ++r)
                           if (std::ranges::count(old, folder + "/" + io::shard_name(r, ranks.size())) != 0)
                             number = 1; // else 0, whose files the old index does not name
                       }),
                       who);
  ranks.template all_reduce<std::uint64_t>(std::span(&number, 1)); // rank 0's
  const expert_placement& placed = layer.dispatch_strategy().placed();
  communicators::agree(ranks, exception_of([&] {
                         // Of several replicas, whose weights are the same, the first.
                         io::ragged_part part{std::vector<bool>(layer.size()), ranks.rank() == 0};
                         for (std::size_t e = 0; e < layer.size(); ++e)
                           part.experts[e] = placed.replicas(e)[0].rank == ranks.rank();
                         io::ragged_checkpoint_writer writer;
                         writer.add_part(layer, part, prefix, reason);
                         add(writer, part);
                         writer.write(folder + "/" + io::shard_name(ranks.rank(), ranks.size(), number));
                       }),
                       who);
  communicators::agree(ranks, exception_of([&] {
                         if (ranks.rank() != 0)
                           return;
                         io::write_shard_index(folder, ranks.size(), number);
                         for (const std::string& path : old)
                           ::unlink(path.c_str());
                       }),
                       who);
}

} // namespace detail

/// Writes the layer into a folder that all ranks see, one layer to a folder: a safetensors file from each rank and an
/// index (hmoe/io/ragged_shards.hpp), which comes last. A checkpoint of this layer that is there stays complete until
/// the new index takes its place; then its files are removed. hmoe::error for a folder whose index has another layer.
template <communicator Communicator, class Layer>
void save_checkpoint(const Communicator& ranks, const Layer& layer, const std::string& folder,
                     const std::string& prefix = "", const io::ragged_reason& reason = {}) {
  detail::save(ranks, layer, folder, prefix, reason, [](io::ragged_checkpoint_writer&, const io::ragged_part&) {});
}
/// The same with the state of its optimiser, under "optimizer.STATE.TENSOR".
template <communicator Communicator, class Layer, class T, class Optimizer>
void save_checkpoint(const Communicator& ranks, const Layer& layer, optimizer_of<T, Optimizer> trained,
                     const std::string& folder, const std::string& prefix = "", const io::ragged_reason& reason = {}) {
  detail::save(ranks, layer, folder, prefix, reason,
               [&](io::ragged_checkpoint_writer& writer, const io::ragged_part& part) {
                 for (std::size_t i = 0; i < trained.list.size(); ++i) {
                   const parameter<T>& p = trained.list[i];
                   if (p.value.empty() || !(p.expert == parameter_info::no_expert ? part.rest : part.experts[p.expert]))
                     continue;
                   trained.optimizer.visit_state(i, [&](std::string_view state, std::span<T> values) {
                     writer.add_tensor<T>(detail::state_name(state, p.name),
                                          matrix_view<const T>(values.data(), p.rows, p.cols));
                   });
                 }
                 if constexpr (requires { trained.optimizer.steps(); })
                   writer.set_metadata(detail::steps_key, std::to_string(trained.optimizer.steps()));
               });
}

/// Reads what save_checkpoint or ragged_checkpoint_writer has written, on however many ranks, into a layer of the same
/// widths and kinds, bit for bit; of the experts of other ranks nothing is read where `layer` has no weights of them.
/// After an error the layer of another rank may have been read.
template <communicator Communicator, class Layer>
void load_checkpoint(const Communicator& ranks, Layer& layer, const std::string& folder, std::string_view prefix = "") {
  communicators::agree(ranks,
                       exception_of([&] { io::load_ragged_shards(io::sharded_safetensors(folder), layer, prefix); }),
                       "load_checkpoint");
}
/// The same with the state of its optimiser, whose list has the names that it had when it was saved.
template <communicator Communicator, class Layer, class T, class Optimizer>
void load_checkpoint(const Communicator& ranks, Layer& layer, optimizer_of<T, Optimizer> trained,
                     const std::string& folder, std::string_view prefix = "") {
  communicators::agree(
      ranks, exception_of([&] {
        const io::sharded_safetensors files(folder);
        const auto for_each_state = [&](const auto& f) {
          detail::for_own_tensors(trained.list, layer.dispatch_strategy().placed(), ranks.rank(), [&](std::size_t i) {
            const parameter<T>& p = trained.list[i];
            trained.optimizer.visit_state(i, [&](std::string_view state, std::span<T> values) {
              f(files.at(detail::state_name(state, p.name)), matrix_view<T>(values.data(), p.rows, p.cols));
            });
          });
        };
        for_each_state([](const io::stored_tensor& tensor, matrix_view<T> to) {
          tensor.require_shape(to.rows(), to.cols());
          require(tensor.type() == io::tensor_type_of<T>, "tensor ", tensor.name(), " is ", tensor.description(),
                  ", the optimiser works with ", io::traits_of(io::tensor_type_of<T>).name);
        });
        std::uint64_t steps = 0;
        if constexpr (requires { trained.optimizer.set_steps(steps); })
          steps = detail::steps_in(files);
        io::load_ragged_shards(files, layer, prefix);
        for_each_state([](const io::stored_tensor& tensor, matrix_view<T> to) { tensor.read(to); });
        if constexpr (requires { trained.optimizer.set_steps(steps); })
          trained.optimizer.set_steps(steps);
      }),
      "load_checkpoint");
}

} // namespace hmoe::parallel

#include <hmoe/core/macros_on.hpp>
