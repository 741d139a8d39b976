// Opening, creating and preallocating a member: a regular file or a block device.
//
// Invariants
//   1. O_DIRECT unless the file system has none; buffered only when the caller allowed it, and told.
//   2. A created file has its full size allocated and is synced, and its directory too, before use.
//   3. A block device opened for writing is held with O_EXCL, and is refused when somebody else
//      uses it or signed it, unless forced.
//   4. Lock descriptors are separate open file descriptions, so that locks of two handles conflict.
#pragma once

#include <string>

#include "status.h"

namespace ingot {

/// An owned descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  [[nodiscard]] int get() const { return fd_; }
  int release();

 private:
  int fd_ = -1;
};

struct DirectFile {
  std::string path;
  Descriptor data;
  Descriptor writer_lock;  // read-write members only
  Descriptor pin_lock;
  bool writable = false;
  bool is_block = false;
  bool direct = false;
  bool in_memory = false;  // tmpfs: a transfer is a copy by the processor
  uint64_t size_bytes = 0;
  uint32_t memory_alignment_bytes = 4096;
  uint32_t offset_alignment_bytes = 4096;
  std::string failure_domain;
  int numa_node = -1;
};

Status open_direct_file(const std::string& path, const ingot_member_options& options, DirectFile& out);

/// Whether the file's bytes live in memory (tmpfs).
bool lives_in_memory(int fd);

/// Fills the alignment that direct I/O on this descriptor asks for.
void probe_alignment(int fd, uint32_t& memory_alignment_bytes, uint32_t& offset_alignment_bytes);

}  // namespace ingot
