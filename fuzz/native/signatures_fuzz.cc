// A drive's contents, of any kind and size, before `create` overwrites it: the search for somebody else's signature
// reads inside the device only, gives one answer, and never misses what was put there.
//
// Input: the size of the device, then patches (where, how long, bytes). The device is a memory file, mostly holes.
#include <sys/mman.h>
#include <unistd.h>

#include "block_device.h"
#include "core_limits.h"
#include "fuzz_input.h"

namespace {

constexpr int kPatchesMax = 8;
constexpr size_t kPatchBytesMax = 64;
constexpr uint64_t kDeviceBytesMax = 4 * ingot::kMiB;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint64_t device_bytes = input.below(kDeviceBytesMax + 1);
  const int fd = memfd_create("ingot-fuzz", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0);
  FUZZ_CHECK(ftruncate(fd, static_cast<off_t>(device_bytes)) == 0);
  for (int patch = 0; patch < kPatchesMax && input.left() > 0 && device_bytes > 0; ++patch) {
    const bool from_end = (input.byte() & 1) != 0;
    const uint64_t distance = input.below(device_bytes);
    const uint64_t at = from_end ? device_bytes - 1 - distance : distance;
    const std::vector<uint8_t> bytes = input.take(input.byte() % (kPatchBytesMax + 1));
    const uint64_t room = device_bytes - at;
    const size_t length = bytes.size() < room ? bytes.size() : room;
    FUZZ_CHECK(pwrite(fd, bytes.data(), length, static_cast<off_t>(at)) == static_cast<ssize_t>(length));
  }
  const ingot::Status first = ingot::check_signatures(fd, device_bytes, "fuzzed");
  FUZZ_CHECK(ingot::check_signatures(fd, device_bytes, "fuzzed").ok() == first.ok());
  // XFS at the very start is known whatever else lies on the device, unless the device is too small to hold a member.
  if (device_bytes >= ingot::kSectorBytes) {
    FUZZ_CHECK(pwrite(fd, "XFSB", 4, 0) == 4);
    const ingot::Status xfs = ingot::check_signatures(fd, device_bytes, "fuzzed");
    FUZZ_CHECK(!xfs.ok() && xfs.errno_value() == 17);
  }
  close(fd);
  return 0;
}
