// See numa.h.
#include "numa.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ingot::gpu {
namespace {

constexpr int kNodesMax = 1024;
constexpr int kPolicyPreferred = 1;  // MPOL_PREFERRED of linux/mempolicy.h
constexpr size_t kTextBytes = 4096;

/// The file's first line; "" where it cannot be read.
std::string line_of(const std::string& path) {
  const char* named = std::getenv("INGOT_SYSFS");
  const std::string root = named != nullptr && named[0] != '\0' ? named : "/sys";
  std::FILE* file = std::fopen((root + path).c_str(), "re");
  if (file == nullptr) return {};
  char text[kTextBytes] = "";
  if (std::fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
  static_cast<void>(std::fclose(file));
  text[std::strcspn(text, "\n")] = '\0';
  return text;
}

/// A node is worth asking for only where there are others.
bool is_one_of_several(int node) {
  const std::string online = line_of("/devices/system/node/online");
  return node >= 0 && node < kNodesMax && online.find_first_of(",-") != std::string::npos;
}

}  // namespace

int node_of_pci(const std::string& pci) {
  const std::string text = line_of("/bus/pci/devices/" + pci + "/numa_node");
  int node = -1;
  return std::sscanf(text.c_str(), "%d", &node) == 1 ? node : -1;
}

void prefer_node(void* data, size_t bytes, int node) {
  if (!is_one_of_several(node)) return;
  unsigned long mask[kNodesMax / (8 * sizeof(unsigned long))] = {};
  mask[static_cast<size_t>(node) / (8 * sizeof(unsigned long))] = 1ul << node % (8 * sizeof(unsigned long));
  static_cast<void>(syscall(SYS_mbind, data, bytes, kPolicyPreferred, mask, kNodesMax, 0));
}

void run_on_node(pthread_t thread, int node) {
  if (!is_one_of_several(node)) return;
  const std::string list = line_of("/devices/system/node/node" + std::to_string(node) + "/cpulist");
  cpu_set_t processors;
  CPU_ZERO(&processors);
  for (size_t at = 0; at < list.size();) {
    const size_t end = list.find(',', at) == std::string::npos ? list.size() : list.find(',', at);
    int first = 0, last = 0;
    const int found = std::sscanf(list.substr(at, end - at).c_str(), "%d-%d", &first, &last);
    if (found == 1) last = first;
    for (int each = first; found >= 1 && each <= last && each < CPU_SETSIZE; ++each) CPU_SET(each, &processors);
    at = end + 1;
  }
  if (CPU_COUNT(&processors) == 0) return;
  static_cast<void>(pthread_setaffinity_np(thread, sizeof processors, &processors));
}

}  // namespace ingot::gpu
