// Who this process is, for the heartbeat block: host, boot and start time, so that a number that the
// kernel used again for another process is not taken for the old one.
//
// Invariants
//   1. Nothing here fails: an unknown fact is an empty text, which equals no other's.
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "ingot_core.h"

namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

void put(char* to, size_t capacity, const std::string& text) { std::snprintf(to, capacity, "%s", text.c_str()); }

}  // namespace

extern "C" int ingot_host_identity(char* host_id, char* boot_id, size_t text_bytes) {
  std::string host = first_line("/etc/machine-id");
  if (host.empty()) {
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) == 0) host = std::string("host:") + name;
  }
  put(host_id, text_bytes, host);
  put(boot_id, text_bytes, first_line("/proc/sys/kernel/random/boot_id"));
  return 1;
}

extern "C" int ingot_process_start(int64_t process_id, char* text, size_t text_bytes) {
  const std::string line = first_line("/proc/" + std::to_string(process_id) + "/stat");
  // The name in parentheses may hold anything; the fields after its last ')' are numbers.
  const size_t close = line.rfind(')');
  if (close == std::string::npos) return 0;
  std::istringstream fields(line.substr(close + 1));
  std::string value;
  // Field 22, start time in clock ticks after boot; the state (field 3) comes first here.
  for (int field = 3; field <= 22; ++field) {
    fields >> value;
    // A zombie holds nothing any more: its descriptors and locks are gone.
    if (field == 3 && (value == "Z" || value == "X")) return 0;
  }
  put(text, text_bytes, value);
  return 1;
}
