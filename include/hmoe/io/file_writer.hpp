// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Writes a file that appears under its name when it is complete. Until commit() the bytes are in a temporary file of
/// this writer's own beside it, and what was at `path` stays as it is; without commit() (an exception passes, say) the
/// temporary file is removed. commit() writes the file and its folder through to the disk, so that after a power cut
/// `path` is the old file or the new one. Of several writers of one path the last that commits wins.
///
/// At `path` may be nothing, or a plain file that this process may write to: the new file takes over its permissions,
/// its group and, where the process may do that, its owner, but no other attributes; other hard links keep the old
/// file. A symbolic link is followed: the file behind it is replaced. A folder, FIFO, socket or device is refused.
///
/// Errors, those of the operating system included, are hmoe::error with the name of the file and the reason. After a
/// failed write nothing can be committed. One thread at a time may use a writer. Needs POSIX.
class file_writer {
public:
  explicit file_writer(std::string path) : path_(std::move(path)) {
    require_plain_file();
    follow_links();
    open_temporary();
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (descriptor_ >= 0)
      ::close(descriptor_);
    if (state_ != state::committed)
      ::unlink(temporary_.c_str());
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  void write(std::span<const std::byte> bytes) {
    require_open();
    if (buffer_.size() + bytes.size() > buffer_bytes)
      flush();
    if (bytes.size() >= buffer_bytes)
      put(bytes);
    else
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  /// Goes back to the beginning, to fill in what was not known there.
  void rewind() {
    require_open();
    flush();
    check(::lseek(descriptor_, 0, SEEK_SET) == 0, "going back to the beginning of ");
  }
  /// Completes the file. Nothing can be written afterwards.
  void commit() {
    require_open();
    flush();
    take_over_permissions();
    check(sync(descriptor_), "writing to the disk ");
    check(::close(std::exchange(descriptor_, -1)) == 0, "closing ");
    check(::rename(temporary_.c_str(), target_.c_str()) == 0, "putting the complete file in the place of ");
    state_ = state::committed;
    sync_folder();
  }

private:
  static constexpr std::size_t buffer_bytes = std::size_t{1} << 16U;
  enum class state { open, failed, committed };

  /// The two halves of a path: up to its last slash, and behind it.
  static std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }
  static std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

  static std::string reason() { return std::error_code(errno, std::generic_category()).message(); }
  /// Some file systems cannot sync, which is no failure.
  static bool sync(int descriptor) { return ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP; }

  void require_open() const {
    require(state_ != state::committed, path_, " is complete: nothing can be written to it after commit()");
    require(state_ != state::failed, path_, " is not complete, because writing to it failed before");
  }
  void check(bool ok, const char* what) {
    if (ok)
      return;
    const std::string why = reason();
    state_ = state::failed;
    fail(what + path_ + " failed: " + why);
  }

  [[noreturn]] void refuse(const std::string& why) const { fail("cannot write " + path_ + ": " + why); }

  /// Looks at what is at the path, through symbolic links.
  void require_plain_file() {
    if (name_of(path_).empty())
      refuse("this is not the name of a file");
    struct stat found{};
    if (::stat(path_.c_str(), &found) != 0) {
      if (errno != ENOENT)
        refuse(reason());
      return;
    }
    if (S_ISDIR(found.st_mode))
      refuse("it is a folder");
    if (!S_ISREG(found.st_mode)) {
      const char* kind = S_ISFIFO(found.st_mode) ? "FIFO" : S_ISSOCK(found.st_mode) ? "socket" : "device";
      refuse(std::string("it is a ") + kind + ", and only a plain file can be replaced by a complete one");
    }
    if (::faccessat(AT_FDCWD, path_.c_str(), W_OK, AT_EACCESS) != 0)
      refuse("the file that is there may not be written to: " + reason());
    replaces_ = true;
    old_ = found;
  }
  void follow_links() {
    target_ = path_;
    struct stat found{};
    for (int links = 0; ::lstat(target_.c_str(), &found) == 0 && S_ISLNK(found.st_mode); ++links) {
      if (links == 40)
        refuse("its symbolic links lead in a circle");
      char next[4096];
      const ::ssize_t length = ::readlink(target_.c_str(), next, sizeof next);
      if (length < 0 || static_cast<std::size_t>(length) == sizeof next)
        refuse("reading the symbolic link failed: " + (length < 0 ? reason() : std::string("it is too long")));
      const std::string to(next, static_cast<std::size_t>(length));
      target_ = to.starts_with('/') ? to : folder_of(target_) + to;
    }
    if (name_of(target_).empty())
      refuse("the symbolic link leads to " + target_ + ", which is not the name of a file");
  }
  /// What is in a file that only its owner may read is not readable to others in the temporary one either.
  void open_temporary() {
    static std::atomic<unsigned> writers = 0;
    constexpr std::size_t longest = 200; // of the 255 bytes that a name may have
    const std::string beginning = folder_of(target_) + name_of(target_).substr(0, longest) + ".partial-" +
                                  std::to_string(static_cast<long long>(::getpid())) + "-";
    do {
      temporary_ = beginning + std::to_string(writers++);
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, replaces_ ? 0600 : 0666);
    } while (descriptor_ < 0 && (errno == EEXIST || errno == EINTR));
    if (descriptor_ < 0)
      refuse("no file can be made in its folder: " + reason());
  }

  void put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ::ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
      check(done >= 0 || errno == EINTR, "writing ");
      bytes = bytes.subspan(static_cast<std::size_t>(std::max<::ssize_t>(done, 0)));
    }
  }
  void flush() {
    put(buffer_);
    buffer_.clear();
  }
  void take_over_permissions() {
    if (!replaces_)
      return;
    auto permissions = static_cast<unsigned>(old_.st_mode) & 0777U;
    const auto unchanged = static_cast<::uid_t>(-1);
    static_cast<void>(::fchown(descriptor_, old_.st_uid, unchanged) == 0);
    if (::fchown(descriptor_, unchanged, old_.st_gid) != 0)
      permissions = (permissions & 0707U) | (permissions & 07U) << 3U; // another group gets no more than everybody
    check(::fchmod(descriptor_, static_cast<::mode_t>(permissions)) == 0, "giving the old permissions to ");
  }
  void sync_folder() const {
    const std::string folder = folder_of(target_);
    const int opened = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0)
      return; // a folder that may be written to but not read
    const bool ok = sync(opened);
    const std::string why = ok ? "" : reason();
    ::close(opened);
    require(ok, path_, " is complete, but its folder could not be written to the disk: ", why);
  }

  std::string path_, target_, temporary_;
  std::vector<std::byte> buffer_;
  struct stat old_{};
  int descriptor_ = -1;
  bool replaces_ = false;
  state state_ = state::open;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
