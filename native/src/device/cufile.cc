// See cufile.h.
#include "cufile.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

namespace ingot::gpu {
namespace {

constexpr const char* kLibraries[] = {"libcufile.so.0", "libcufile.so"};
/// Where CUDA's own packages put it, which the loader does not always look at.
constexpr const char* kFolders[] = {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/x86_64-linux/lib/"};

void* open_library(Cufile& found) {
  const char* named = std::getenv("INGOT_CUFILE_LIBRARY");
  if (named != nullptr && named[0] != '\0') {
    found.library = named;
    return dlopen(named, RTLD_NOW | RTLD_LOCAL);
  }
  for (const char* folder : kFolders) {
    for (const char* name : kLibraries) {
      found.library = std::string(folder) + name;
      if (void* library = dlopen(found.library.c_str(), RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
    }
  }
  return nullptr;
}

/// Empty: all is well.
std::string load(Cufile& found) {
  // Never closed: the library keeps threads of its own.
  void* library = open_library(found);
  if (library == nullptr) {
    const char* why = dlerror();
    return why == nullptr ? "libcufile.so cannot be loaded" : why;
  }
#define INGOT_CUFILE_LOAD(result, field, name, parameters)                               \
  found.field = reinterpret_cast<result(*) parameters>(dlsym(library, name));            \
  if (found.field == nullptr) return found.library + " has no " + std::string(name);
  INGOT_CUFILE_ENTRIES(INGOT_CUFILE_LOAD)
#undef INGOT_CUFILE_LOAD
  const CufileError opened = found.driver_open();
  if (opened.error == 0) return {};
  return "cuFileDriverOpen failed (cuFile's error " + std::to_string(opened.error) + ", CUDA's " +
         std::to_string(opened.cuda_error) + ")";
}

}  // namespace

const Cufile* cufile(std::string& reason) {
  static std::once_flag once;
  static Cufile* const library = new Cufile;
  static std::string* const found = new std::string;
  std::call_once(once, [] { *found = load(*library); });
  reason = *found;
  return reason.empty() ? library : nullptr;
}

bool has_nvidia_fs() {
  const char* named = std::getenv("INGOT_NVIDIA_FS");
  const std::string folder = named != nullptr && named[0] != '\0' ? named : "/proc/driver/nvidia-fs";
  return access((folder + "/version").c_str(), R_OK) == 0;
}

int cufile_path(const DirectFile& file, std::string& why) {
  if (!has_nvidia_fs()) why = "the nvidia-fs module is not loaded";
  else if (file.in_memory) why = "its file lives in memory";
  else if (!file.direct) why = "its file system has no O_DIRECT";
  else why.clear();
  if (!why.empty()) return INGOT_PATH_CUFILE_COMPAT;
  why = "nvidia-fs is loaded and the member takes O_DIRECT";
  return INGOT_PATH_CUFILE_DIRECT;
}

Status CufileHandle::make(const Cufile& library, int fd, std::unique_ptr<CufileHandle>& out) {
  CufileDescription description{};
  description.type = kCufileDescriptor;
  description.of.fd = fd;
  void* handle = nullptr;
  const CufileError made = library.handle_register(&handle, &description);
  if (made.error != 0) {
    return {"E_GPU", 0, "cuFileHandleRegister failed (cuFile's error " + std::to_string(made.error) + ")"};
  }
  out.reset(new CufileHandle(library, handle));
  return {};
}

CufileHandle::~CufileHandle() { library_.handle_deregister(handle_); }

uint64_t CufileHandle::read(CuAddress base, uint64_t base_offset, uint64_t file_offset, uint64_t bytes) const {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t got = library_.read(handle_, reinterpret_cast<void*>(base), bytes - done,
                                      static_cast<off_t>(file_offset + done), static_cast<off_t>(base_offset + done));
    // A short read is asked for again where it stopped, as read(2) is; none at all is a failure.
    if (got <= 0) break;
    done += static_cast<uint64_t>(got) < bytes - done ? static_cast<uint64_t>(got) : bytes - done;
  }
  return done;
}

}  // namespace ingot::gpu
