// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda.hpp>
#include <hmoe/core/matrix.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

using namespace hmoe;

// Not in an unnamed namespace: the names of kernels differ from compilation to compilation there.
__global__ void add_one(matrix_view<float, device_space> m) {
  for (std::size_t i = threadIdx.x; i < m.size(); i += blockDim.x)
    m.data()[i] += 1;
}

namespace {

TEST_CASE("A context on the device reads as one on the host") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  static_assert(std::same_as<decltype(context{backends::cuda{}}), backends::cuda_context>);
  CHECK(gpu.compute_capability() >= 80);
  CHECK(gpu.multiprocessors() >= 1);
  CHECK(gpu.workspace().capacity() == 0);
  gpu.synchronize();
}

TEST_CASE("Matrices go to the device and come back [race]") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  matrix<float> host(5, 7);
  for (std::size_t i = 0; i < host.size(); ++i)
    host.data()[i] = static_cast<float>(i);
  backends::device_matrix<float> device(gpu.executor(), host.view());
  add_one<<<1, 32, 0, gpu.stream()>>>(device);
  backends::cuda_detail::require_cuda(cudaGetLastError(), "add_one");
  matrix<float> back(5, 7);
  device.read(gpu.executor(), back.view());
  gpu.synchronize();
  for (std::size_t i = 0; i < host.size(); ++i)
    CHECK(back.data()[i] == host.data()[i] + 1);

  // Views with a stride, both ways.
  backends::device_matrix<float> part(gpu.executor(), std::as_const(host).view().column_block(2, 3));
  part.read(gpu.executor(), back.view().column_block(1, 3));
  gpu.synchronize();
  for (std::size_t r = 0; r < 5; ++r)
    for (std::size_t c = 0; c < 3; ++c)
      CHECK(back(r, c + 1) == host(r, c + 2));
  CHECK_THROWS_WITH_AS(part.read(gpu.executor(), back.view()), "hmoe: copying a matrix of 5 x 3 to one of 5 x 7",
                       error);
}

TEST_CASE("Arrays grow only") {
  const executors::cuda_stream stream;
  backends::device_buffer<int> values(10);
  const int* const first = values.data();
  values.resize_for_overwrite(4);
  CHECK(values.data() == first);
  values.assign(stream, std::vector<int>{1, 2, 3});
  CHECK(values.size() == 3);
  CHECK(values.capacity() == 10);
  std::vector<int> back(3);
  values.read(stream, back);
  values.set_zero(stream);
  stream.synchronize();
  CHECK(back == std::vector<int>{1, 2, 3});
  std::vector<int> too_many(4);
  CHECK_THROWS_WITH_AS(values.read(stream, too_many), "hmoe: reading 4 values of a device array of 3", error);
}

TEST_CASE("A workspace allocates when it has to, as it was told to") {
  const executors::cuda_stream stream;
  backends::device_workspace fixed(1000);
  CHECK(fixed.block_for(1000, stream) != nullptr);
  CHECK_THROWS_WITH_AS((void)fixed.block_for(1001, stream),
                       "hmoe: the pass needs 1001 bytes of device workspace, reserved are 1000: reserve what "
                       "workspace_bytes(tokens) tells",
                       error);
  for (const auto growth : {backends::workspace_growth::device, backends::workspace_growth::stream_ordered}) {
    backends::device_workspace growing(growth);
    const auto* const block = growing.block_for(100, stream);
    CHECK(growing.capacity() == 100);
    CHECK(growing.block_for(60, stream) == block);
    CHECK(growing.block_for(200, stream) != nullptr);
    CHECK(growing.capacity() == 200);
    growing.reserve(300);
    CHECK(growing.capacity() == 300);
  }
}

/// Bytes of arrays one behind the other, each from a multiple of 256 on.
std::size_t bytes_of(std::initializer_list<std::size_t> arrays) {
  std::size_t sum = 0;
  for (const std::size_t bytes : arrays)
    sum += (bytes + 255) / 256 * 256;
  return sum;
}
/// What a pass over T tokens, each with k of N experts, has: a tape, and workspaces without the scratch of the router.
struct pass_bytes {
  std::size_t tape, inference, forward, backward;
};
/// As the layer takes them. `row_bytes`: what set_row_bytes gives.
template <class S>
pass_bytes taken(const backends::cuda_detail::pass_shape& shape, std::size_t T, std::size_t k,
                 std::size_t row_bytes = std::size_t{512} << 20U) {
  namespace kernels = backends::cuda_detail;
  kernels::carver inference, forward, backward;
  (void)kernels::pass_arrays<S>::take(inference, shape, T, T * k, false);
  (void)kernels::forward_rows<S>::take(inference, shape, T * k, row_bytes / 4);
  (void)kernels::forward_rows<S>::take(forward, shape, T * k, row_bytes / 4);
  (void)kernels::backward_arrays<S>::take(backward, shape, T, T * k, row_bytes / 4);
  return {backends::cuda_tape<S>::bytes_for(shape, T, T * k), inference.used(), forward.used(), backward.used()};
}
/// By hand, for glu experts of width h, of which d and h need no padding. `rows`: floats of rows by slot.
pass_bytes of_glu(std::size_t s, std::size_t d, std::size_t h, std::size_t N, std::size_t k, std::size_t T,
                  std::size_t rows) {
  const std::size_t e = T * k;
  const std::size_t trace = bytes_of({4 * T * N, 4 * T * N, 4 * N}),
                    plan = bytes_of({4 * (T + 1), 4 * e, 4 * e, 4 * (N + 1), 4 * e, 4 * e, 4 * e}),
                    hidden_and_outputs = bytes_of({s * e * h, 4 * rows});
  return {trace + plan + bytes_of({4 * T * N, 4 * T * N, s * e * 2 * h, s * T * d, 8 * 32}),
          trace + plan + hidden_and_outputs, hidden_and_outputs,
          bytes_of({4 * e, 4 * rows, 4 * T * d, s * e * 2 * h, s * e * h, 4 * e * ((h + 15) / 16)})};
}
void check_equal(const pass_bytes& got, const pass_bytes& expected) {
  CHECK(got.tape == expected.tape);
  CHECK(got.inference == expected.inference);
  CHECK(got.forward == expected.forward);
  CHECK(got.backward == expected.backward);
}

TEST_CASE("Bytes of tapes and workspaces are those of the arrays that passes need") {
  // d, experts, routed, widest, one lane, two lanes, constants, experts of a user, weights on the input
  const backends::cuda_detail::pass_shape small{32, 6, 6, 48, false, true, false, false, false},
      qwen3{2048, 128, 128, 768, false, true, false, false, false};
  check_equal(taken<float>(small, 100, 2), of_glu(4, 32, 48, 6, 2, 100, 200 * 32));
  check_equal(taken<bfloat16>(small, 100, 2), of_glu(2, 32, 48, 6, 2, 100, 200 * 32));
  check_equal(taken<bfloat16>(small, 0, 2), of_glu(2, 32, 48, 6, 2, 0, 0));

  // The table of docs/backends/cuda.md, in GB: rows are made in pieces of 512 columns, 512 MiB.
  constexpr std::size_t tokens = 32768, entries = 8 * tokens;
  const pass_bytes narrow = taken<bfloat16>(qwen3, tokens, 8), wide = taken<float>(qwen3, tokens, 8);
  check_equal(narrow, of_glu(2, 2048, 768, 128, 8, tokens, entries * 512));
  check_equal(wide, of_glu(4, 2048, 768, 128, 8, tokens, entries * 512));
  const auto hundredths = [](std::size_t bytes) { return std::lround(static_cast<double>(bytes) / 1e7); };
  CHECK(hundredths(narrow.tape) == 101);
  CHECK(hundredths(narrow.inference) == 98);
  CHECK(hundredths(narrow.forward) == 94);
  CHECK(hundredths(narrow.backward) == 206);
  CHECK(hundredths(wide.tape) == 195);
  CHECK(hundredths(wide.inference) == 138);
  CHECK(hundredths(wide.forward) == 134);
  CHECK(hundredths(wide.backward) == 327);
  const pass_bytes least = taken<bfloat16>(qwen3, tokens, 8, 0), most = taken<bfloat16>(qwen3, tokens, 8, SIZE_MAX);
  check_equal(least, of_glu(2, 2048, 768, 128, 8, tokens, entries * 128));
  check_equal(most, of_glu(2, 2048, 768, 128, 8, tokens, entries * 2048));

  // What other kinds and places of weights take besides.
  auto other = small;
  other.constants = true; // three floats for each slot, kept
  CHECK(taken<float>(other, 100, 2).tape - taken<float>(small, 100, 2).tape == bytes_of({4 * 200 * 3}));
  other = qwen3;
  other.own = true; // whole rows, and weight · dy
  CHECK(taken<bfloat16>(other, tokens, 8).forward == most.forward);
  CHECK(taken<bfloat16>(other, tokens, 8).backward == most.backward + 2 * entries * 2048);
  CHECK(taken<bfloat16>(other, tokens, 8).tape == narrow.tape);
  other.own = false;
  other.weights_on_input = true; // weight · x; whole rows in backward, and no partial sums
  CHECK(taken<bfloat16>(other, tokens, 8).forward == narrow.forward + 2 * entries * 2048);
  CHECK(taken<bfloat16>(other, tokens, 8).backward == most.backward + 2 * entries * 2048 - 4 * entries * 48);
  CHECK(taken<bfloat16>(other, tokens, 8).tape == narrow.tape);
}

TEST_CASE("Pieces have every column once, and more entries never take less memory") {
  using backends::cuda_detail::row_pieces;
  for (const std::size_t d : {1U, 127U, 128U, 129U, 300U, 2048U})
    for (const std::size_t most : {0U, 1000U, 100'000U}) {
      std::size_t before = 0;
      for (std::size_t entries = 0; entries < 900; ++entries) {
        const row_pieces pieces(entries, d, most);
        std::size_t next = 0;
        pieces.for_each([&](const backends::cuda_detail::column_range& columns) {
          CHECK(columns.first == next);
          CHECK(columns.first % row_pieces::unit == 0);
          CHECK(columns.count >= 1);
          next += columns.count;
        });
        CHECK(next == d);
        const std::size_t floats = row_pieces::floats(entries, d, most);
        CHECK(entries * pieces.columns <= floats);
        CHECK(floats >= before);
        CHECK((floats <= most || floats <= entries * row_pieces::unit));
        before = floats;
      }
    }
}

TEST_CASE("Tiles are chosen by the columns of the products that a part of a pass has") {
  using backends::cuda_detail::ffn_part, backends::cuda_detail::ffn_piece;
  constexpr index_t d = 2048;
  CHECK(ffn_piece{}.narrowest(d, 768) == 768);
  CHECK(ffn_piece{}.narrowest(d, 4096) == d);
  CHECK(ffn_piece{ffn_part::all, {512, 256}}.narrowest(d, 768) == 256);
  CHECK(ffn_piece{ffn_part::hidden, {512, 256}}.narrowest(d, 4096) == 4096);
  CHECK(ffn_piece{ffn_part::rows, {512, 256}}.narrowest(d, 128) == 256);
  CHECK(ffn_piece{ffn_part::rows}.narrowest(d, 128) == d);
}

TEST_CASE("An error of CUDA is an hmoe::error with its words") {
  std::string text;
  try {
    backends::cuda_detail::require_cuda(cudaErrorMemoryAllocation, "allocating ", 12, " bytes");
  } catch (const error& e) {
    text = e.what();
  }
  CHECK(text.starts_with("hmoe: CUDA: allocating 12 bytes: "));
}

} // namespace
