// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <utility>
#include <vector>

#if defined(__unix__)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace hmoe::communicators {

/// Memory of ranks on one machine that all of them read: a part for each rank, which that rank alone writes. What a
/// rank has written before an operation of the communicator that needs all ranks (a sum, say) others may read after it.
/// Threads read each other's heap. Processes map objects of POSIX shared memory, whose names are removed as soon as all
/// have opened them: nothing is left behind when a process dies. Copies of a communicator share one.
class shared_memory {
public:
  enum class between { threads, processes };

  shared_memory(between who, std::size_t ranks) : who_(who), parts_(ranks), records_(ranks) {}

  /// False, on every rank, after parts could not be made: the machine has no more of such memory, or ranks do not see
  /// each other's.
  [[nodiscard]] bool usable() const noexcept { return usable_; }
  /// Of this rank's part; 0 before grow().
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// 64-byte aligned.
  [[nodiscard]] std::byte* part(std::size_t rank) const noexcept { return parts_[rank].get(); }

  /// Collective, when no rank reads: new parts, this rank's of at least `least` bytes; what was in the old ones is
  /// lost. Returns usable(). Does not throw, unless the communicator does.
  template <communicator Communicator> bool grow(const Communicator& ranks, std::size_t least) {
    const std::size_t own = ranks.rank();
    for (std::shared_ptr<std::byte>& part : parts_)
      part.reset();
    bytes_ = std::max(bytes_, least + least / 4);
    record mine;
    mine.made = exception_of([&] { parts_[own] = make_part(mine); }) == nullptr && parts_[own] != nullptr ? 1 : 0;
    mine.bytes = bytes_;
    mine.held = &parts_[own];
    ranks.template all_gather<record>(std::span<const record>(&mine, 1), std::span(records_));
    std::uint64_t failed = 0;
    for (std::size_t p = 0; p < records_.size() && failed == 0; ++p) {
      if (records_[p].made == 0)
        failed = 1;
      else if (p != own && (exception_of([&] { parts_[p] = open_part(records_[p]); }) != nullptr || !parts_[p]))
        failed = 1;
    }
    ranks.template all_reduce<std::uint64_t>(std::span(&failed, 1));
    remove_name(mine);
    if (failed != 0) {
      for (std::shared_ptr<std::byte>& part : parts_)
        part.reset();
      bytes_ = 0;
      usable_ = false;
    }
    return usable_;
  }

private:
  /// How others find a part.
  struct record {
    std::array<char, 48> name{};                      ///< of processes
    const std::shared_ptr<std::byte>* held = nullptr; ///< of threads
    std::uint64_t bytes = 0, made = 0;
  };

  [[nodiscard]] std::shared_ptr<std::byte> make_part([[maybe_unused]] record& mine) const {
    if (who_ == between::threads)
      return {static_cast<std::byte*>(::operator new(bytes_, std::align_val_t{memory_alignment})),
              [](std::byte* p) { ::operator delete(p, std::align_val_t{memory_alignment}); }};
#if defined(__unix__)
    std::random_device random;
    std::snprintf(mine.name.data(), mine.name.size(), "/hmoe-%08x%08x%08x", random(), random(), random());
    const int file = ::shm_open(mine.name.data(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (file < 0)
      return nullptr;
    // Takes the memory now: where there is too little of it, later writes would end the process.
    std::shared_ptr<std::byte> made;
    if (::posix_fallocate(file, 0, static_cast<off_t>(bytes_)) == 0)
      made = map(file, bytes_, PROT_READ | PROT_WRITE);
    ::close(file);
    return made;
#else
    return nullptr;
#endif
  }
  [[nodiscard]] std::shared_ptr<std::byte> open_part(const record& other) const {
    if (who_ == between::threads)
      return *other.held; // lives as long as somebody has it
#if defined(__unix__)
    const int file = ::shm_open(other.name.data(), O_RDONLY, 0);
    if (file < 0)
      return nullptr;
    std::shared_ptr<std::byte> opened = map(file, other.bytes, PROT_READ);
    ::close(file);
    return opened;
#else
    return nullptr;
#endif
  }
  void remove_name([[maybe_unused]] const record& mine) const noexcept {
#if defined(__unix__)
    if (mine.name[0] != '\0')
      ::shm_unlink(mine.name.data());
#endif
  }
#if defined(__unix__)
  [[nodiscard]] static std::shared_ptr<std::byte> map(int file, std::size_t bytes, int protection) {
    void* const at = ::mmap(nullptr, bytes, protection, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
      return nullptr;
    return {static_cast<std::byte*>(at), [bytes](std::byte* p) { ::munmap(p, bytes); }};
  }
#endif

  between who_;
  bool usable_ = true;
  std::size_t bytes_ = 0;
  std::vector<std::shared_ptr<std::byte>> parts_; ///< by rank
  std::vector<record> records_;                   ///< by rank
};

/// A communicator that may offer such memory: shared() returns nullptr where there is none.
template <class C>
concept shares_memory = requires(const C& ranks) {
  { ranks.shared() } -> std::same_as<shared_memory*>;
};

/// Whether the ranks of a communicator can read each other's memory; the same answer on all of them.
template <class C> [[nodiscard]] bool share_memory([[maybe_unused]] const C& ranks) noexcept {
  if constexpr (shares_memory<C>)
    return ranks.shared() != nullptr && ranks.shared()->usable();
  else
    return false;
}

} // namespace hmoe::communicators
