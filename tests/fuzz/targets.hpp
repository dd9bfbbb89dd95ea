// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/packed_bank.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/io/checksum.hpp>
#include <hmoe/io/gguf.hpp>
#include <hmoe/io/packed_checkpoint.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/io/routing_text.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/tuned_table.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What the fuzzer calls with any bytes, one function for each kind of file. Such bytes are read, or refused by an
/// hmoe::error; everything else that may happen is a finding.
namespace fuzz {

inline void require_true(bool holds) {
  if (!holds)
    std::abort();
}

/// Reads all values of tensors that are not too many for one input.
inline void read_tensor(const hmoe::io::stored_tensor& tensor) {
  if (tensor.size() > 1U << 14U)
    return;
  hmoe::matrix<float> values(tensor.rows(), tensor.cols());
  tensor.read(values.view());
  static_cast<void>(tensor.description());
  if (!tensor.shape().empty() && tensor.shape()[0] != 0 && tensor.bytes().size() % tensor.shape()[0] == 0) {
    try {
      const auto part = tensor.slice(tensor.shape()[0] - 1);
      require_true(part.bytes().data() + part.bytes().size() == tensor.bytes().data() + tensor.bytes().size());
    } catch (const hmoe::error&) { // parts that begin within a byte
    }
  }
}

inline void safetensors(std::span<const std::byte> bytes) {
  try {
    const hmoe::io::safetensors_file file(bytes, "fuzz");
    std::size_t total = 0;
    for (const auto& tensor : file.tensors()) {
      total += tensor.bytes().size();
      require_true(file.find(tensor.name()) == &tensor);
      read_tensor(tensor);
    }
    require_true(total < bytes.size());
  } catch (const hmoe::error&) {
  }
}

inline std::size_t count_values(const hmoe::io::gguf_value& value) {
  std::size_t count = 1;
  if (value.type() == hmoe::io::gguf_type::array)
    for (const auto& element : value.elements("array"))
      count += count_values(element);
  else if (value.type() == hmoe::io::gguf_type::text)
    count += value.text("text").size();
  else if (value.type() == hmoe::io::gguf_type::boolean)
    count += value.boolean("boolean") ? 1U : 0U;
  else
    count += value.number("number") == 0 ? 1U : 0U;
  return count;
}

inline void gguf(std::span<const std::byte> bytes) {
  try {
    const hmoe::io::gguf_file file(bytes, "fuzz");
    std::size_t values = 0;
    for (const auto& [key, value] : file.metadata()) {
      require_true(file.metadata(key) == &value);
      values += count_values(value);
    }
    require_true(values <= 2 * bytes.size());
    for (const auto& tensor : file.tensors()) {
      require_true(file.find(tensor.name()) == &tensor);
      read_tensor(tensor);
    }
  } catch (const hmoe::error&) {
  }
}

/// Checksums would keep the fuzzer from what is behind them, so they are made right first.
inline void routing_log(std::span<const std::byte> bytes) {
  using header_type = hmoe::io::detail::routing_log_header;
  constexpr std::size_t preamble = sizeof(header_type) + sizeof(std::uint64_t);
  std::vector<std::byte> file(bytes.begin(), bytes.end());
  if (file.size() >= preamble) {
    header_type header;
    std::memcpy(&header, file.data(), sizeof header);
    header.payload_bytes = file.size() - preamble;
    hmoe::io::checksum sum;
    sum.add(std::span(file).subspan(preamble));
    header.payload_checksum = sum.value();
    const std::uint64_t own = header.own_checksum();
    std::memcpy(file.data(), &header, sizeof header);
    std::memcpy(file.data() + sizeof header, &own, sizeof own);
  }
  const int descriptor = ::memfd_create("fuzz", 0);
  require_true(descriptor >= 0);
  require_true(::write(descriptor, file.data(), file.size()) == static_cast<::ssize_t>(file.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  try {
    for (const auto& record : hmoe::io::read_routing_log<float>(path))
      record.assigned.validate(static_cast<std::size_t>(record.experts));
  } catch (const hmoe::error&) {
  }
  ::close(descriptor);
}

/// With and without checksums, which would keep the fuzzer from what is behind them.
inline void packed(std::span<const std::byte> bytes) {
  using bank_type = hmoe::backends::packed_bank<hmoe::backends::formats::f32, hmoe::experts::relu, 1>;
  std::vector<std::byte> memory(bytes.size() + hmoe::memory_alignment); // at a multiple of 64, as a mapped file is
  const std::size_t first = reinterpret_cast<std::uintptr_t>(memory.data()) % hmoe::memory_alignment;
  const auto file = std::span(memory).subspan(first == 0 ? 0 : hmoe::memory_alignment - first, bytes.size());
  std::ranges::copy(bytes, file.begin());
  for (const auto which : {hmoe::io::checksums::skip, hmoe::io::checksums::compare})
    try {
      const hmoe::io::packed_checkpoint checkpoint(file, "fuzz", which);
      const auto again = hmoe::io::packed_manifest::from_json(checkpoint.manifest().to_json(), "fuzz");
      require_true(again.layers == checkpoint.manifest().layers);
      for (const auto& layer : again.layers)
        for (std::size_t b = 0; b < layer.banks.size(); ++b)
          try {
            const auto bank = checkpoint.bank<bank_type>(layer.prefix, b);
            unsigned sum = 0; // of the last byte of each panel, which must be there
            for (std::size_t e = 0; e < bank.size(); ++e) {
              const std::size_t panels = bank_type::weights_type::in_panels(bank.width(e));
              for (std::size_t p = 1; p <= panels; ++p)
                sum += std::to_integer<unsigned>(*(bank.weights().in_panel(e, p) - 1));
              for (std::size_t p = 1; p <= bank.weights().out_panels() && bank.width(e) != 0; ++p)
                sum += std::to_integer<unsigned>(*(bank.weights().out_panel(e, p) - 1));
              std::array<float, bank_type::panel_columns> tile{};
              bank.finish_output(e, bank.weights().out_panels() - 1, 1, tile.data());
            }
            require_true(sum <= 255 * bytes.size());
          } catch (const hmoe::error&) {
          }
    } catch (const hmoe::error&) {
    }
}

inline void manifest(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  try {
    const auto manifest = hmoe::io::ragged_manifest::from_json(text, "fuzz");
    const auto again = hmoe::io::ragged_manifest::from_json(manifest.to_json(), "fuzz");
    require_true(again.layers == manifest.layers);
  } catch (const hmoe::error&) {
  }
}

/// A line of routings. What was read is written and read again.
inline void routing_text(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string written;
  try {
    written = hmoe::io::to_routing_text(hmoe::io::from_routing_text<float>(text, "fuzz"));
  } catch (const hmoe::error&) {
    return;
  }
  require_true(hmoe::io::to_routing_text(hmoe::io::from_routing_text<float>(written, "again")) == written);
}

inline void tuned_table(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string written;
  try {
    written = hmoe::io::tuned_table_text(hmoe::io::parse_tuned_table(text, "fuzz", "CPU"));
  } catch (const hmoe::error&) {
    return;
  }
  require_true(hmoe::io::tuned_table_text(hmoe::io::parse_tuned_table(written, "again", "CPU")) == written);
}

} // namespace fuzz
