// What the system knows of a block device, and whether somebody else's data may be on it.
//
// Invariants
//   1. Nothing here writes. What create overwrites is the engine's decision, taken under the writer lock.
//   2. A device that is mounted, swapped on, partitioned, held by another driver or carries a known
//      signature is refused with a sentence that names what was found.
//   3. By force only partitions and signatures are passed over, never a use: a device that the system works with would
//      be written from two sides.
#pragma once

#include <sys/types.h>

#include <string>

#include "status.h"

namespace ingot {

struct BlockFacts {
  uint64_t size_bytes = 0;
  uint32_t sector_bytes = 512;
};

Status read_block_facts(int fd, const std::string& path, BlockFacts& facts);
/// Refuses a device in use, itself or a partition of it: mounted, swapped on, held (dm, md) or behind a loop device;
/// and one that is partitioned, unless `take_partitions`.
Status check_block_unused(dev_t device, const std::string& path, bool take_partitions);
/// Refuses a device or file with a signature of somebody else's format in its head or tail.
Status check_signatures(int fd, uint64_t size_bytes, const std::string& path);
/// Names what fails together with this device: the whole drive, "" when unknown.
std::string failure_domain_of(dev_t device);
/// -1 when unknown.
int numa_node_of(dev_t device);

}  // namespace ingot
