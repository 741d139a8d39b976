// See direct_file.h.
#include "direct_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "block_device.h"
#include "core_limits.h"

namespace ingot {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.release();
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

int Descriptor::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

namespace {

// Not named "quoted": from GCC 13 on std::quoted comes into reach through <filesystem>, and fits a std::string& better.
std::string in_quotes(const std::string& path) { return "'" + path + "'"; }

const char* code_of(int errno_value) {
  switch (errno_value) {
    case ENOENT: case ENXIO: case ENODEV: return "E_NOT_FOUND";
    case EEXIST: return "E_EXISTS";
    case EROFS: return "E_READ_ONLY";
    case ENOSPC: case EDQUOT: case EFBIG: return "E_NO_SPACE";
    case EBUSY: return "E_LOCKED";
    default: return "E_IO";
  }
}

Status sync_directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const Descriptor fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return system_failure("E_IO", "open of directory " + in_quotes(directory), errno);
  if (fsync(fd.get()) != 0) return system_failure("E_IO", "sync of directory " + in_quotes(directory), errno);
  return {};
}

/// Creates the file with every block allocated, so that no write inside it can run out of space.
Status create_file(const std::string& path, const ingot_member_options& options) {
  if (options.size_bytes == 0 || options.size_bytes % kSectorBytes != 0) {
    return {"E_USAGE", 0, "size of " + in_quotes(path) + " must be a positive multiple of 4096 bytes"};
  }
  // By force the name is taken over, never the file behind it: a process that still has the old member open
  // keeps its own inode and cannot be corrupted through this one.
  if (options.force != 0 && unlink(path.c_str()) != 0 && errno != ENOENT) {
    return system_failure(code_of(errno), "replace " + in_quotes(path), errno);
  }
  const Descriptor fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_EXCL, 0600));
  if (fd.get() < 0) return system_failure(code_of(errno), "create " + in_quotes(path), errno);
  int error = 0;
  do {
    error = fallocate(fd.get(), 0, 0, static_cast<off_t>(options.size_bytes)) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error == EOPNOTSUPP) error = posix_fallocate(fd.get(), 0, static_cast<off_t>(options.size_bytes));
  if (error == 0 && fsync(fd.get()) != 0) error = errno;
  if (error != 0) {
    // What this call made is taken away again.
    unlink(path.c_str());
    const std::string what = "preallocate " + std::to_string(options.size_bytes) + " bytes for " + in_quotes(path);
    return system_failure(code_of(error), what, error);
  }
  return sync_directory_of(path);
}

Status open_data(const std::string& path, const ingot_member_options& options, int extra, DirectFile& out) {
  const int flags = (options.writable != 0 ? O_RDWR : O_RDONLY) | O_CLOEXEC | extra;
  int fd = open(path.c_str(), flags | O_DIRECT);
  // io_uring lets go of a device a moment after its ring is closed (TigerBeetle retries for the same reason).
  for (int retry = 0; fd < 0 && errno == EBUSY && retry < kBusyRetries; ++retry) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kBusyRetryMs));
    fd = open(path.c_str(), flags | O_DIRECT);
  }
  out.direct = fd >= 0;
  if (fd < 0 && errno == EINVAL) {
    if (options.require_direct != 0) {
      return {"E_UNSUPPORTED", EINVAL, "the file system of " + in_quotes(path) + " has no O_DIRECT"};
    }
    fd = open(path.c_str(), flags);
  }
  if (fd < 0) return system_failure(code_of(errno), "open " + in_quotes(path), errno);
  out.data = Descriptor(fd);
  return {};
}

Status adopt_block(const struct stat& info, const ingot_member_options& options, DirectFile& out) {
  BlockFacts facts;
  if (Status status = read_block_facts(out.data.get(), out.path, facts); !status.ok()) return status;
  out.size_bytes = facts.size_bytes / kSectorBytes * kSectorBytes;
  if (out.memory_alignment_bytes == 0) out.memory_alignment_bytes = facts.sector_bytes;
  if (out.offset_alignment_bytes == 0) out.offset_alignment_bytes = facts.sector_bytes;
  if (options.force == 0) {
    if (Status status = check_signatures(out.data.get(), out.size_bytes, out.path); !status.ok()) return status;
  }
  if (options.create != 0) {
    if (options.size_bytes > out.size_bytes) {
      return {"E_NO_SPACE", ENOSPC, in_quotes(out.path) + " holds " + std::to_string(out.size_bytes) + " bytes, " +
                                        std::to_string(options.size_bytes) + " were asked for"};
    }
    if (options.size_bytes != 0) out.size_bytes = options.size_bytes / kSectorBytes * kSectorBytes;
  }
  out.failure_domain = failure_domain_of(info.st_rdev);
  out.numa_node = numa_node_of(info.st_rdev);
  return {};
}

Status open_locks(DirectFile& out) {
  // Without O_EXCL: a second exclusive open of the same device by this process would be refused.
  if (out.writable) {
    out.writer_lock = Descriptor(open(out.path.c_str(), O_RDWR | O_CLOEXEC));
    if (out.writer_lock.get() < 0) {
      return system_failure(code_of(errno), "open " + in_quotes(out.path) + " for locking", errno);
    }
  }
  out.pin_lock = Descriptor(open(out.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (out.pin_lock.get() < 0) {
    return system_failure(code_of(errno), "open " + in_quotes(out.path) + " for locking", errno);
  }
  return {};
}

}  // namespace

bool lives_in_memory(int fd) {
  struct statfs system{};
  return fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC;
}

void probe_alignment(int fd, uint32_t& memory_alignment_bytes, uint32_t& offset_alignment_bytes) {
  memory_alignment_bytes = 0;
  offset_alignment_bytes = 0;
#ifdef STATX_DIOALIGN
  struct statx info{};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0) {
    memory_alignment_bytes = info.stx_dio_mem_align;
    offset_alignment_bytes = info.stx_dio_offset_align;
  }
#else
  static_cast<void>(fd);
#endif
}

Status open_direct_file(const std::string& path, const ingot_member_options& options, DirectFile& out) {
  out.path = path;
  out.writable = options.writable != 0;
  struct stat info{};
  const bool exists = stat(path.c_str(), &info) == 0;
  out.is_block = exists && S_ISBLK(info.st_mode);
  if (exists && !out.is_block && !S_ISREG(info.st_mode)) {
    return {"E_USAGE", 0, in_quotes(path) + " is neither a regular file nor a block device"};
  }
  if (out.is_block && out.writable) {
    if (Status status = check_block_unused(info.st_rdev, path, options.force != 0); !status.ok()) return status;
  }
  if (!out.is_block && options.create != 0) {
    if (Status status = create_file(path, options); !status.ok()) return status;
  }
  // The kernel refuses what this process cannot see: mounts of other namespaces, members of a Btrfs.
  const bool exclusive = out.is_block && out.writable;
  if (Status status = open_data(path, options, exclusive ? O_EXCL : 0, out); !status.ok()) return status;
  if (fstat(out.data.get(), &info) != 0) return system_failure("E_IO", "stat " + in_quotes(path), errno);
  probe_alignment(out.data.get(), out.memory_alignment_bytes, out.offset_alignment_bytes);
  if (out.is_block) {
    if (Status status = adopt_block(info, options, out); !status.ok()) return status;
  } else {
    out.size_bytes = static_cast<uint64_t>(info.st_size);
    out.in_memory = lives_in_memory(out.data.get());
    out.failure_domain = failure_domain_of(info.st_dev);
    out.numa_node = numa_node_of(info.st_dev);
  }
  // A kernel that cannot say is assumed to want whole pages.
  if (out.memory_alignment_bytes == 0) out.memory_alignment_bytes = kSectorBytes;
  if (out.offset_alignment_bytes == 0) out.offset_alignment_bytes = kSectorBytes;
  if (!out.direct) out.memory_alignment_bytes = out.offset_alignment_bytes = 1;
  if (out.offset_alignment_bytes > kSectorBytes) {
    const std::string needed = std::to_string(out.offset_alignment_bytes);
    return {"E_UNSUPPORTED", EINVAL,
            in_quotes(path) + " needs I/O aligned to " + needed + "; the format aligns to 4096"};
  }
  return open_locks(out);
}

}  // namespace ingot
