// Which memory and processors are near a GPU, from sysfs, without libnuma.
//
// Invariants
//   1. Everything here is a wish: what the kernel refuses, or does not say, changes nothing but speed.
//   2. On a machine of one node nothing is asked for.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <string>

namespace ingot::gpu {

/// The node of a PCI device ("0000:01:00.0"); -1 unknown. sysfs is /sys, or the folder INGOT_SYSFS names (tests).
int node_of_pci(const std::string& pci);
/// Pages of [data, data + bytes) that are not there yet come from this node where it has room.
void prefer_node(void* data, size_t bytes, int node);
/// The thread runs on the node's processors.
void run_on_node(pthread_t thread, int node);

}  // namespace ingot::gpu
