// See block_device.h. Facts come from ioctls, /proc/self/mountinfo, /proc/swaps and sysfs.
#include "block_device.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "core_limits.h"

namespace ingot {
namespace {

/// Loop devices on files on loop devices: how far the search for the drive goes.
constexpr int kDomainDepthMax = 8;
constexpr uint64_t kSignatureRegionBytes = 1 * kMiB;

struct Signature {
  const char* name;
  uint64_t offset_bytes;
  const char* magic;
  size_t magic_bytes;
};

// Offsets from the start of the device, as in the formats' own documents (and blkid's table).
constexpr Signature kHeadSignatures[] = {
    {"ext2/3/4", 0x438, "\x53\xef", 2},
    {"XFS", 0, "XFSB", 4},
    {"Btrfs", 0x10040, "_BHRfS_M", 8},
    {"LUKS", 0, "LUKS\xba\xbe", 6},
    {"LUKS2 backup", 0x4000, "SKUL\xba\xbe", 6},
    {"GPT", 512, "EFI PART", 8},
    {"GPT (4 KiB sectors)", 4096, "EFI PART", 8},
    {"MBR or FAT boot sector", 510, "\x55\xaa", 2},
    {"LVM2", 512, "LABELONE", 8},
    {"LVM2", 0, "LABELONE", 8},
    {"LVM2", 1024, "LABELONE", 8},
    {"LVM2", 1536, "LABELONE", 8},
    {"Linux md 1.1", 0, "\xfc\x4e\x2b\xa9", 4},
    {"Linux md 1.2", 4096, "\xfc\x4e\x2b\xa9", 4},
    {"swap", 4086, "SWAPSPACE2", 10},
    {"swap (suspended)", 4086, "S1SUSPEND", 9},
    {"F2FS", 1024, "\x10\x20\xf5\xf2", 4},
    {"NTFS", 3, "NTFS    ", 8},
    {"exFAT", 3, "EXFAT   ", 8},
    {"BitLocker", 3, "-FVE-FS-", 8},
    {"SquashFS", 0, "hsqs", 4},
    {"ISO 9660", 0x8001, "CD001", 5},
    {"JFS", 0x8000, "JFS1", 4},
    {"ReiserFS", 0x10034, "ReIsEr", 6},
    {"NILFS2", 0x406, "\x34\x34", 2},
    {"bcachefs or bcache", 0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", 8},
    {"Ceph BlueStore", 0, "bluestore block device", 22},
    {"erofs", 1024, "\xe2\xe1\xf5\xe0", 4},
    {"DRBD", 0, "\x83\x74\x02\x6d", 4},
};

bool starts_with(const std::vector<char>& bytes, uint64_t offset, const char* magic, size_t length) {
  if (offset + length > bytes.size()) return false;
  return std::equal(magic, magic + length, bytes.begin() + static_cast<long>(offset));
}

/// ZFS keeps 128 KiB of uberblocks in each 256 KiB label; any magic number in them counts.
bool has_zfs_label(const std::vector<char>& bytes, uint64_t label_offset) {
  for (uint64_t slot = 0; slot < 128; ++slot) {
    const uint64_t offset = label_offset + 128 * kKiB + slot * kKiB;
    if (starts_with(bytes, offset, "\x0c\xb1\xba\x00\x00\x00\x00\x00", 8)) return true;
  }
  return false;
}

std::string find_head_signature(const std::vector<char>& head) {
  for (const Signature& each : kHeadSignatures) {
    if (starts_with(head, each.offset_bytes, each.magic, each.magic_bytes)) return each.name;
  }
  return has_zfs_label(head, 0) || has_zfs_label(head, 256 * kKiB) ? "ZFS" : "";
}

std::string find_tail_signature(const std::vector<char>& tail, uint64_t size_bytes) {
  const uint64_t start = size_bytes - tail.size();
  const auto at = [&](uint64_t offset, const char* magic, size_t length) {
    return offset >= start && starts_with(tail, offset - start, magic, length);
  };
  constexpr const char* kMdMagic = "\xfc\x4e\x2b\xa9";
  if (size_bytes < 128 * kKiB) return "";
  if (at((size_bytes / 512 - 16) * 512 / 4096 * 4096, kMdMagic, 4)) return "Linux md 1.0";
  if (at(size_bytes / (64 * kKiB) * (64 * kKiB) - 64 * kKiB, kMdMagic, 4)) return "Linux md 0.90";
  if (at(size_bytes - 512, "EFI PART", 8)) return "GPT backup header";
  return "";
}

Status read_region(int fd, uint64_t offset, std::vector<char>& bytes, const std::string& path) {
  void* memory = nullptr;
  if (posix_memalign(&memory, kSectorBytes, bytes.size()) != 0) return system_failure("E_NATIVE", "memory", ENOMEM);
  const std::unique_ptr<void, decltype(&std::free)> owner(memory, &std::free);
  const ssize_t got = pread(fd, memory, bytes.size(), static_cast<off_t>(offset));
  if (got < 0) return system_failure("E_IO", "read of '" + path + "' at " + std::to_string(offset), errno);
  const auto* from = static_cast<const char*>(memory);
  bytes.assign(from, from + got);
  return {};
}

std::string sysfs_of(dev_t device) {
  const std::string link = "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  char resolved[PATH_MAX];
  return realpath(link.c_str(), resolved) != nullptr ? std::string(resolved) : std::string();
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Names of sub-directories (partitions) or entries (holders) of a sysfs directory.
std::vector<std::string> entries_of(const std::string& directory) {
  std::vector<std::string> names;
  DIR* handle = opendir(directory.c_str());
  if (handle == nullptr) return names;
  while (const dirent* entry = readdir(handle)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  closedir(handle);
  return names;
}

std::vector<std::string> partitions_of(const std::string& sysfs) {
  std::vector<std::string> found;
  for (const std::string& name : entries_of(sysfs)) {
    if (access((sysfs + "/" + name + "/partition").c_str(), F_OK) == 0) found.push_back(name);
  }
  return found;
}

std::string mount_point_of(const std::string& device_number) {
  std::ifstream file("/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string id, parent, number, root, target;
    fields >> id >> parent >> number >> root >> target;
    if (number == device_number) return target;
  }
  return "";
}

bool swapped_on(dev_t device) {
  std::ifstream file("/proc/swaps");
  for (std::string line; std::getline(file, line);) {
    struct stat info{};
    const std::string path = line.substr(0, line.find_first_of(" \t"));
    if (stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode) && info.st_rdev == device) return true;
  }
  return false;
}

/// A loop device takes no exclusive hold of the device behind it, so only sysfs tells.
std::string loop_over(dev_t device) {
  for (const std::string& name : entries_of("/sys/block")) {
    const std::string backing = first_line("/sys/block/" + name + "/loop/backing_file");
    struct stat info{};
    if (backing.empty() || stat(backing.c_str(), &info) != 0) continue;
    if (S_ISBLK(info.st_mode) && info.st_rdev == device) return name;
  }
  return "";
}

/// What uses this one device or partition, as the end of a sentence; empty when nothing is known to.
std::string use_of(dev_t device, const std::string& number, const std::string& sysfs) {
  if (const std::string target = mount_point_of(number); !target.empty()) return "mounted on " + target;
  if (swapped_on(device)) return "swapped on";
  if (const std::string loop = loop_over(device); !loop.empty()) return "behind loop device " + loop;
  if (sysfs.empty()) return "";
  const std::vector<std::string> holders = entries_of(sysfs + "/holders");
  return holders.empty() ? "" : "held by " + holders[0];
}

std::string domain_at(dev_t device, int depth) {
  const std::string sysfs = sysfs_of(device);
  if (sysfs.empty()) return "dev:" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  const bool is_partition = access((sysfs + "/partition").c_str(), F_OK) == 0;
  const std::string whole = is_partition ? sysfs.substr(0, sysfs.rfind('/')) : sysfs;
  const std::string backing = first_line(whole + "/loop/backing_file");
  struct stat info{};
  if (!backing.empty() && depth < kDomainDepthMax && stat(backing.c_str(), &info) == 0) {
    return domain_at(S_ISBLK(info.st_mode) ? info.st_rdev : info.st_dev, depth + 1);
  }
  const std::vector<std::string> parts = entries_of(whole + "/slaves");
  if (parts.size() == 1 && depth < kDomainDepthMax) {
    unsigned high = 0, low = 0;
    if (std::sscanf(first_line(whole + "/slaves/" + parts[0] + "/dev").c_str(), "%u:%u", &high, &low) == 2) {
      return domain_at(makedev(high, low), depth + 1);
    }
  }
  for (const char* name : {"/wwid", "/device/wwid", "/device/serial"}) {
    if (const std::string id = first_line(whole + name); !id.empty()) return "drive:" + id.substr(0, 80);
  }
  return "drive:" + whole.substr(whole.rfind('/') + 1);
}

}  // namespace

Status read_block_facts(int fd, const std::string& path, BlockFacts& facts) {
  int sector = 0;
  uint64_t size = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0) return system_failure("E_IO", "size of '" + path + "'", errno);
  if (ioctl(fd, BLKSSZGET, &sector) != 0 || sector <= 0) {
    return system_failure("E_IO", "sector size of '" + path + "'", errno);
  }
  facts.size_bytes = size;
  facts.sector_bytes = static_cast<uint32_t>(sector);
  return {};
}

Status check_block_unused(dev_t device, const std::string& path, bool take_partitions) {
  const std::string number = std::to_string(major(device)) + ":" + std::to_string(minor(device));
  const auto in_use = [&](const std::string& why) {
    return Status("E_EXISTS", EBUSY, "'" + path + "' is in use: " + why);
  };
  const std::string sysfs = sysfs_of(device);
  if (const std::string use = use_of(device, number, sysfs); !use.empty()) return in_use(use);
  if (sysfs.empty()) return {};
  for (const std::string& name : partitions_of(sysfs)) {
    const std::string part_number = first_line(sysfs + "/" + name + "/dev");
    unsigned high = 0, low = 0;
    if (std::sscanf(part_number.c_str(), "%u:%u", &high, &low) != 2) return in_use("its partition " + name);
    const std::string use = use_of(makedev(high, low), part_number, sysfs + "/" + name);
    if (!use.empty()) return in_use("its partition " + name + " is " + use);
    if (!take_partitions) return in_use("it is partitioned (" + name + ")");
  }
  return {};
}

Status check_signatures(int fd, uint64_t size_bytes, const std::string& path) {
  const uint64_t region = std::min(size_bytes / kSectorBytes * kSectorBytes, kSignatureRegionBytes);
  if (region == 0) return {};
  std::vector<char> head(region);
  if (Status status = read_region(fd, 0, head, path); !status.ok()) return status;
  // A member of ours proves itself by its superblocks, which the engine checks.
  if (starts_with(head, 0, "INGOT", 5)) return {};
  std::string found = find_head_signature(head);
  if (found.empty()) {
    std::vector<char> tail(region);
    const uint64_t offset = (size_bytes - region) / kSectorBytes * kSectorBytes;
    if (Status status = read_region(fd, offset, tail, path); !status.ok()) return status;
    found = find_tail_signature(tail, offset + tail.size());
  }
  if (found.empty()) return {};
  return {"E_EXISTS", EEXIST, "'" + path + "' carries a signature of somebody else's data: " + found};
}

std::string failure_domain_of(dev_t device) { return domain_at(device, 0); }

int numa_node_of(dev_t device) {
  std::string directory = sysfs_of(device);
  for (int depth = 0; depth < kDomainDepthMax && directory.size() > 5; ++depth) {
    for (const char* name : {"/numa_node", "/device/numa_node"}) {
      const std::string text = first_line(directory + name);
      if (!text.empty()) return std::atoi(text.c_str());
    }
    directory.resize(directory.rfind('/'));
  }
  return -1;
}

}  // namespace ingot
