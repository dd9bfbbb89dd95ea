// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <utility>
#include <vector>

namespace support {

/// Scratch memory that has what was announced and no more: it counts as hmoe::workspace does and throws beyond. Each
/// piece of it is filled with NaN and has a line behind it that nobody may write to.
class guarded_workspace final : public std::pmr::memory_resource {
public:
  explicit guarded_workspace(std::size_t bytes) : announced_(bytes) {}

  /// The most bytes that were in use at one time.
  [[nodiscard]] std::size_t peak() const noexcept { return peak_; }
  /// Whether no line behind a piece was written to, of those that were given back.
  [[nodiscard]] bool intact() const noexcept { return intact_; }

  class scope {
  public:
    explicit scope(guarded_workspace& memory) noexcept
        : memory_(memory), used_(memory.used_), pieces_(memory.pieces_.size()) {}
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() { memory_.give_back(used_, pieces_); }

  private:
    guarded_workspace& memory_;
    std::size_t used_, pieces_;
  };

private:
  static constexpr std::byte mark{0xa5};
  struct piece {
    hmoe::buffer<std::byte> memory;
    std::size_t bytes;
  };

  void* do_allocate(std::size_t bytes, std::size_t) override {
    bytes = hmoe::aligned_bytes<std::byte>(std::max<std::size_t>(bytes, 1));
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    hmoe::require(used_ <= announced_, used_, " bytes are in use, ", announced_, " were announced");
    pieces_.push_back({hmoe::buffer<std::byte>(bytes + hmoe::memory_alignment), bytes});
    hmoe::buffer<std::byte>& memory = pieces_.back().memory;
    std::fill_n(memory.data(), bytes, std::byte{0xff});
    std::fill_n(memory.data() + bytes, hmoe::memory_alignment, mark);
    return memory.data();
  }
  void do_deallocate(void*, std::size_t, std::size_t) override {}
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
  void give_back(std::size_t used, std::size_t pieces) noexcept {
    for (std::size_t i = pieces; i < pieces_.size(); ++i) {
      const std::byte* behind = pieces_[i].memory.data() + pieces_[i].bytes;
      intact_ = intact_ && std::all_of(behind, behind + hmoe::memory_alignment, [](std::byte b) { return b == mark; });
    }
    pieces_.erase(pieces_.begin() + static_cast<std::ptrdiff_t>(pieces), pieces_.end());
    used_ = used;
  }

  std::vector<piece> pieces_;
  std::size_t announced_, used_ = 0, peak_ = 0;
  bool intact_ = true;
};

/// hmoe::context with such a workspace, for what takes any context.
template <class Backend, class Executor> class guarded_context {
public:
  using backend_type = Backend;
  using executor_type = Executor;
  using workspace_scope = guarded_workspace::scope;

  guarded_context(Backend backend, Executor executor, guarded_workspace& memory)
      : backend_(std::move(backend)), executor_(std::move(executor)), memory_(&memory) {}
  [[nodiscard]] const Backend& backend() const noexcept { return backend_; }
  [[nodiscard]] const Executor& executor() const noexcept { return executor_; }
  [[nodiscard]] guarded_workspace& workspace() const noexcept { return *memory_; }

private:
  Backend backend_;
  Executor executor_;
  guarded_workspace* memory_;
};

} // namespace support
