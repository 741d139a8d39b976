// cuFile (GPUDirect Storage) by dlopen, with declarations of our own for the few entry points used.
//
// Invariants
//   1. Nothing links against it. A machine without it gets a reason in words, never a load error.
//   2. The library is libcufile.so.0, or what INGOT_CUFILE_LIBRARY names (tests put a stand-in there); it and its
//      driver are opened once for the life of the process.
//   3. A CufileHandle lives no longer than the descriptor that it was made of, and ends when nothing reads from it.
//   4. The path is told before a byte is read: direct only where the nvidia-fs module is loaded and the member takes
//      O_DIRECT on storage of its own; anything else is compat, in which cuFile copies through host memory.
//
// Techniques: NVIDIA's cuFile API; RAPIDS KvikIO loads the library at run time in the same way.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cuda_driver.h"
#include "direct_file.h"
#include "status.h"

namespace ingot::gpu {

struct CufileError { int error, cuda_error; };
struct CufileDescription {
  int type;                     // 1: a file descriptor
  union { int fd; void* handle; } of;
  const void* operations;       // of user-space file systems; none here
};
inline constexpr int kCufileDescriptor = 1;

#define INGOT_CUFILE_ENTRIES(ENTRY)                                                                                   \
  ENTRY(CufileError, driver_open, "cuFileDriverOpen", (void))                                                         \
  ENTRY(CufileError, handle_register, "cuFileHandleRegister", (void** handle, CufileDescription* description))        \
  ENTRY(void, handle_deregister, "cuFileHandleDeregister", (void* handle))                                            \
  ENTRY(CufileError, buffer_register, "cuFileBufRegister", (const void* base, size_t bytes, int flags))               \
  ENTRY(CufileError, buffer_deregister, "cuFileBufDeregister", (const void* base))                                    \
  ENTRY(ssize_t, read, "cuFileRead", (void* handle, void* base, size_t bytes, off_t file_offset, off_t base_offset))

struct Cufile {
#define INGOT_CUFILE_FIELD(result, field, name, parameters) result(*field) parameters = nullptr;
  INGOT_CUFILE_ENTRIES(INGOT_CUFILE_FIELD)
#undef INGOT_CUFILE_FIELD
  std::string library;
};

/// The library with its driver open; nullptr and `reason` where there is none.
const Cufile* cufile(std::string& reason);
/// Whether nvidia-fs is loaded: /proc/driver/nvidia-fs, or the folder that INGOT_NVIDIA_FS names (tests).
bool has_nvidia_fs();
/// INGOT_PATH_CUFILE_DIRECT or _COMPAT, and why.
int cufile_path(const DirectFile& file, std::string& why);

/// One descriptor, registered.
class CufileHandle {
 public:
  /// E_GPU with cuFile's number.
  static Status make(const Cufile& library, int fd, std::unique_ptr<CufileHandle>& out);
  ~CufileHandle();
  CufileHandle(const CufileHandle&) = delete;
  CufileHandle& operator=(const CufileHandle&) = delete;
  /// Bytes that arrived at base + offset: all of them, or fewer where something failed. A GPU's context is current.
  [[nodiscard]] uint64_t read(CuAddress base, uint64_t base_offset, uint64_t file_offset, uint64_t bytes) const;

 private:
  CufileHandle(const Cufile& library, void* handle) : library_(library), handle_(handle) {}
  const Cufile& library_;
  void* const handle_;
};

}  // namespace ingot::gpu
