// An extent with all its sums, looked up in a snapshot, and the read of all its stored bytes.
//
// Invariants
//   1. What is returned has one sum for each segment.
//   2. Looking up reads pages of the catalog alone, never an extent.
#pragma once

#include "records.h"
#include "snapshot.h"

namespace ingot::reader {

/// Errors: E_FORMAT (a record that is missing or broken), and those of pages.
ExtentRecord fetch_extent(Snapshot& snapshot, uint64_t id);
/// A read of all stored bytes, from every copy that may be read. Its sums are the caller's to place.
void plan_whole_extent(const Snapshot& snapshot, const ExtentRecord& extent, uint8_t* destination, ReadOp& read);

}  // namespace ingot::reader
