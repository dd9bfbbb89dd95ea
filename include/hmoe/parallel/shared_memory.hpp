// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace hmoe::communicators {

/// Memory of ranks on one machine that all of them read: a part for each rank, which that rank alone writes. What a
/// rank has written before an operation of the communicator that needs all ranks (a sum, say) others may read after it.
/// Threads read each other's heap. Processes, on Linux, map files below /dev/shm, which lose their names as soon as all
/// have opened them: nothing is left behind when a process dies, unless it dies in that moment. Parts grow with the
/// largest batch and do not shrink. Copies of a communicator share one.
class shared_memory {
public:
  enum class between { threads, processes };

  shared_memory(between who, std::size_t ranks) : who_(who), parts_(ranks), records_(ranks) {}

  /// False, on every rank, after a rank could not open another's part: ranks do not see each other's memory.
  [[nodiscard]] bool usable() const noexcept { return usable_; }
  /// Of this rank's part; 0 where there is none.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// 64-byte aligned.
  [[nodiscard]] std::byte* part(std::size_t rank) const noexcept { return parts_[rank].get(); }

  /// Collective, when no rank reads: new parts, this rank's of at least `least` bytes; what was in the old ones is
  /// lost. Returns false, on every rank, where the machine has too little of such memory: then there are parts of the
  /// sizes before, where there is room for these, and as many bytes of all ranks are not tried again. Does not throw,
  /// unless the communicator does; then bytes() is 0.
  template <communicator Communicator> bool grow(const Communicator& ranks, std::size_t least) {
    std::uint64_t total = least;
    ranks.template all_reduce<std::uint64_t>(std::span(&total, 1));
    if (!usable_ || total >= too_much_)
      return false;
    const std::size_t before = bytes_;
    if (make_parts(ranks, std::max(before, least + least / 4)))
      return true;
    too_much_ = total;
    if (usable_ && before != 0) // on every rank
      make_parts(ranks, before);
    return false;
  }

private:
  /// How others find a part.
  struct record {
    std::array<char, 48> name{};                      ///< of processes: a file
    const std::shared_ptr<std::byte>* held = nullptr; ///< of threads
    std::uint64_t bytes = 0, made = 0;
  };

  /// That of this rank, whose file loses its name at the end.
  struct named {
    named() = default;
    named(const named&) = delete;
    named& operator=(const named&) = delete;
    ~named() {
#if defined(__linux__)
      if (own.name[0] != '\0')
        ::unlink(own.name.data());
#endif
    }
    record own;
  };

  /// All ranks have new parts, or none has any.
  template <communicator Communicator> bool make_parts(const Communicator& ranks, std::size_t bytes) {
    const std::size_t own = ranks.rank();
    drop_parts();
    // Nobody makes a new part while another holds old ones: there might be no room for both.
    std::uint64_t unseen = 0;
    ranks.template all_reduce<std::uint64_t>(std::span(&unseen, 1));
    named file;
    record& mine = file.own;
    mine.made =
        exception_of([&] { parts_[own] = make_part(mine, bytes); }) == nullptr && parts_[own] != nullptr ? 1 : 0;
    mine.bytes = bytes;
    mine.held = &parts_[own];
    ranks.template all_gather<record>(std::span<const record>(&mine, 1), std::span(records_));
    const bool all = std::ranges::all_of(records_, [](const record& r) { return r.made != 0; });
    for (std::size_t p = 0; p < records_.size() && all && unseen == 0; ++p)
      if (p != own && (exception_of([&] { parts_[p] = open_part(records_[p]); }) != nullptr || !parts_[p]))
        unseen = 1;
    ranks.template all_reduce<std::uint64_t>(std::span(&unseen, 1));
    usable_ = unseen == 0;
    if (!all || !usable_) {
      drop_parts();
      return false;
    }
    bytes_ = bytes;
    return true;
  }
  void drop_parts() noexcept {
    for (std::shared_ptr<std::byte>& part : parts_)
      part.reset();
    bytes_ = 0;
  }

  [[nodiscard]] std::shared_ptr<std::byte> make_part([[maybe_unused]] record& mine, std::size_t bytes) const {
    if (who_ == between::threads)
      return {static_cast<std::byte*>(::operator new(bytes, std::align_val_t{memory_alignment})),
              [](std::byte* p) { ::operator delete(p, std::align_val_t{memory_alignment}); }};
#if defined(__linux__)
    std::random_device random;
    // What shm_open does, which is in a library of its own before glibc 2.34.
    std::snprintf(mine.name.data(), mine.name.size(), "/dev/shm/hmoe-%08x%08x%08x", random(), random(), random());
    const int file = ::open(mine.name.data(), O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
      return nullptr;
    std::shared_ptr<std::byte> made;
    if (take(file, bytes))
      made = map(file, bytes, PROT_READ | PROT_WRITE);
    ::close(file);
    return made;
#else
    return nullptr;
#endif
  }
  [[nodiscard]] std::shared_ptr<std::byte> open_part(const record& other) const {
    if (who_ == between::threads)
      return *other.held; // lives as long as somebody has it
#if defined(__linux__)
    const int file = ::open(other.name.data(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
      return nullptr;
    std::shared_ptr<std::byte> opened = map(file, other.bytes, PROT_READ);
    ::close(file);
    return opened;
#else
    return nullptr;
#endif
  }
#if defined(__linux__)
  /// Takes the memory of a file now: where there is too little of it, later writes would end the process. A signal ends
  /// a call, which has taken nothing then; so the file is taken piece by piece after one.
  [[nodiscard]] static bool take(int file, std::size_t bytes) {
    const int error = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
    if (error != EINTR)
      return error == 0;
    constexpr std::size_t piece = std::size_t{1} << 20;
    for (std::size_t at = 0; at < bytes;) {
      const std::size_t next = std::min(piece, bytes - at);
      const int failed = ::posix_fallocate(file, static_cast<off_t>(at), static_cast<off_t>(next));
      if (failed == 0)
        at += next;
      else if (failed != EINTR)
        return false;
    }
    return true;
  }
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
  std::uint64_t too_much_ = std::numeric_limits<std::uint64_t>::max(); ///< of all ranks together
  std::vector<std::shared_ptr<std::byte>> parts_;                      ///< by rank
  std::vector<record> records_;                                        ///< by rank
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

#include <hmoe/core/macros_on.hpp>
