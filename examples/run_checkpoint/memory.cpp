// SPDX-License-Identifier: MIT
#include "memory.hpp"

#include <fstream>
#include <iomanip>
#include <sstream>

namespace run_checkpoint {

void* counted_memory::do_allocate(std::size_t bytes, std::size_t alignment) {
  void* memory = std::pmr::new_delete_resource()->allocate(bytes, alignment);
  const std::size_t now = in_use_.fetch_add(bytes) + bytes;
  for (std::size_t most = peak_; most < now && !peak_.compare_exchange_weak(most, now);) {
  }
  return memory;
}
void counted_memory::do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) {
  in_use_ -= bytes;
  std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
}

double bytes_in(const char* path, std::string_view name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name)) {
      double kilobytes = 0;
      std::istringstream(line.substr(name.size() + 1)) >> kilobytes;
      return 1024 * kilobytes;
    }
  return 0;
}
std::string megabytes(double bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << bytes / 1e6 << " MB";
  return text.str();
}

} // namespace run_checkpoint
