// SPDX-License-Identifier: MIT
#include <hmoe/io/file_writer.hpp>

#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using hmoe::io::file_writer;
using support::contents_of;
using support::set_contents;

namespace {

std::vector<std::string>* calls = nullptr; // where fsync and rename below take notes

std::string name_of(int descriptor) {
  std::error_code failure;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), failure);
  return path.filename().string();
}

} // namespace

// The functions of the C library are in a shared object, so these take their places in this program.
extern "C" int fsync(int descriptor) {
  if (calls != nullptr)
    calls->push_back("fsync " + name_of(descriptor));
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
extern "C" int rename(const char* from, const char* to) noexcept {
  if (calls != nullptr)
    calls->push_back("rename " + std::filesystem::path(from).filename().string() + " " +
                     std::filesystem::path(to).filename().string());
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

void write(const std::filesystem::path& path, std::string_view text) {
  file_writer file(path);
  file.write(bytes(text));
  file.commit();
}

unsigned permissions(const std::filesystem::path& path) {
  struct stat found{};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  return found.st_mode & 07777U;
}

void refused(const std::filesystem::path& path, const char* why) {
  CHECK_THROWS_WITH_AS(file_writer{path}, doctest::Contains(why), hmoe::error);
}

} // namespace

TEST_CASE("two writers of one path: both complete, the later one stays, and neither touches the other's bytes") {
  const support::scratch_folder folder;
  const std::string first(300'000, '1'), second(200'000, '2');
  file_writer a(folder / "file"), b(folder / "file");
  for (std::size_t at = 0; at < first.size(); at += 1000) {
    a.write(bytes(std::string_view(first).substr(at, 1000)));
    if (at < second.size())
      b.write(bytes(std::string_view(second).substr(at, 1000)));
  }
  CHECK_FALSE(std::filesystem::exists(folder / "file"));
  {
    file_writer abandoned(folder / "file");
    abandoned.write(bytes("nothing"));
  }
  a.commit();
  CHECK(contents_of(folder / "file") == first);
  b.commit();
  CHECK(contents_of(folder / "file") == second);
  CHECK(folder.entries() == 1);
}

TEST_CASE("what is there stays until commit(), and when there is none") {
  const support::scratch_folder folder;
  set_contents(folder / "file", "older");
  {
    file_writer file(folder / "file");
    file.write(bytes(std::string(200'000, 'x')));
    CHECK(contents_of(folder / "file") == "older");
    CHECK(folder.entries() == 2);
  }
  CHECK(contents_of(folder / "file") == "older");
  CHECK(folder.entries() == 1);
  set_contents(folder / "file.partial-1-1", "of somebody else");
  write(folder / "file", "newer");
  CHECK(contents_of(folder / "file") == "newer");
  CHECK(contents_of(folder / "file.partial-1-1") == "of somebody else");
}

TEST_CASE("the beginning can be filled in last") {
  const support::scratch_folder folder;
  file_writer file(folder / "file");
  file.write(bytes("????"));
  file.write(bytes(std::string(100'000, 'x')));
  file.rewind();
  file.write(bytes("done"));
  file.commit();
  CHECK(contents_of(folder / "file") == "done" + std::string(100'000, 'x'));
}

TEST_CASE("data are on the disk before the name is, and the name before commit() returns") {
  const support::scratch_folder folder;
  std::vector<std::string> seen;
  file_writer file(folder / "file");
  file.write(bytes("text"));
  calls = &seen;
  file.commit();
  calls = nullptr;
  REQUIRE(seen.size() == 3);
  CHECK(seen[0].starts_with("fsync file.partial-"));
  CHECK(seen[1].starts_with("rename file.partial-"));
  CHECK(seen[1].ends_with(" file"));
  CHECK(seen[2] == "fsync " + folder.path().filename().string());
}

TEST_CASE("a new file has the usual permissions, one in the place of another has those of the old one") {
  const support::scratch_folder folder;
  set_contents(folder / "usual", "");
  write(folder / "new", "text");
  CHECK(permissions(folder / "new") == permissions(folder / "usual"));
  for (const unsigned old : {0600U, 0640U, 0755U, 0666U}) {
    set_contents(folder / "file", "older");
    ::chmod((folder / "file").c_str(), old);
    {
      file_writer file(folder / "file");
      for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
        if (entry.path().string().find(".partial-") != std::string::npos)
          CHECK(permissions(entry.path()) == 0600U);
      file.write(bytes("newer"));
      file.commit();
    }
    CHECK(permissions(folder / "file") == old);
    CHECK(contents_of(folder / "file") == "newer");
  }
}

TEST_CASE("symbolic links are followed, to files that are there and that are not") {
  const support::scratch_folder folder;
  std::filesystem::create_directory(folder / "elsewhere");
  set_contents(folder / "elsewhere/target", "older");
  std::filesystem::create_symlink("elsewhere/target", folder / "link");
  std::filesystem::create_symlink(folder / "link", folder / "link to link");
  write(folder / "link to link", "newer");
  CHECK(std::filesystem::is_symlink(folder / "link to link"));
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(contents_of(folder / "elsewhere/target") == "newer");
  std::filesystem::create_symlink("elsewhere/new", folder / "dangling");
  write(folder / "dangling", "text");
  CHECK(std::filesystem::is_symlink(folder / "dangling"));
  CHECK(contents_of(folder / "elsewhere/new") == "text");
  std::filesystem::create_symlink("b", folder / "a");
  std::filesystem::create_symlink("a", folder / "b");
  refused(folder / "a", "cannot write");
}

TEST_CASE("what is no plain file is refused, and stays") {
  const support::scratch_folder folder;
  std::filesystem::create_directory(folder / "folder");
  refused(folder / "folder", "folder: it is a folder");
  refused(folder.path() / "new" / "", "not the name of a file");
  refused("", "not the name of a file");
  refused(folder / "none/file", "cannot write");
  set_contents(folder / "plain", "");
  refused(folder / "plain/file", "cannot write");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0666) == 0);
  refused(folder / "fifo", "it is a FIFO, and only a plain file");
  std::filesystem::create_symlink("fifo", folder / "link");
  refused(folder / "link", "it is a FIFO");
  refused("/dev/null", "it is a device");
  CHECK(std::filesystem::is_fifo(folder / "fifo"));
  CHECK(std::filesystem::is_character_file("/dev/null"));
  CHECK(folder.entries() == 4);
}

TEST_CASE("a file that this user may not write to is not replaced") {
  const support::scratch_folder folder;
  ::chmod(folder.path().c_str(), 0777);
  set_contents(folder / "file", "kept");
  ::chmod((folder / "file").c_str(), 0444);
  const auto user = ::geteuid();
  if (user == 0)
    REQUIRE(::seteuid(65534) == 0); // root may write to everything
  refused(folder / "file", "may not be written to");
  if (user == 0)
    REQUIRE(::seteuid(0) == 0);
  CHECK(contents_of(folder / "file") == "kept");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a disk that takes no more: an error with the reason, the old file stays, and nothing can be committed") {
  const support::scratch_folder folder;
  set_contents(folder / "file", "older");
  struct rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    file_writer file(folder / "file");
    struct rlimit small = old;
    small.rlim_cur = 1000;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    std::string message;
    try {
      file.write(bytes(std::string(100'000, 'x')));
    } catch (const hmoe::error& e) {
      message = e.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &old);
    CHECK(message.find("writing " + (folder / "file").string() + " failed: ") != std::string::npos);
    CHECK_THROWS_WITH_AS(file.write(bytes("x")), doctest::Contains("writing to it failed before"), hmoe::error);
    CHECK_THROWS_WITH_AS(file.commit(), doctest::Contains("writing to it failed before"), hmoe::error);
  }
  std::signal(SIGXFSZ, handler);
  CHECK(contents_of(folder / "file") == "older");
  CHECK(folder.entries() == 1);
}

TEST_CASE("after commit() the file is complete") {
  const support::scratch_folder folder;
  file_writer file(folder / "file");
  file.commit();
  CHECK_THROWS_WITH_AS(file.write(bytes("x")), doctest::Contains("nothing can be written to it after commit()"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(file.rewind(), doctest::Contains("is complete"), hmoe::error);
  CHECK_THROWS_WITH_AS(file.commit(), doctest::Contains("is complete"), hmoe::error);
  CHECK(contents_of(folder / "file").empty());
}

TEST_CASE("what takes the path's place in the meantime is an error, and the temporary file goes") {
  const support::scratch_folder folder;
  {
    file_writer file(folder / "file");
    std::filesystem::create_directories(folder / "file/inside");
    CHECK_THROWS_WITH_AS(file.commit(), doctest::Contains("putting the complete file in the place of"), hmoe::error);
  }
  CHECK(folder.entries() == 1);
}

TEST_CASE("the longest name that a file can have") {
  const support::scratch_folder folder;
  const std::string name(255, 'n');
  write(folder / name, "text");
  CHECK(contents_of(folder / name) == "text");
  CHECK(folder.entries() == 1);
}
