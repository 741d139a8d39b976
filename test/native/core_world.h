// A context with one or two file members for C++ tests, and calls that wait for their result.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "check.h"
#include "ingot_core.h"

struct Waiter {
  std::mutex mutex;
  std::condition_variable ready;
  ingot_result* result = nullptr;

  static void done(void* user, ingot_result* result) {
    auto* waiter = static_cast<Waiter*>(user);
    const std::lock_guard lock(waiter->mutex);
    waiter->result = result;
    waiter->ready.notify_all();
  }
  ingot_result* wait() {
    std::unique_lock lock(mutex);
    ready.wait(lock, [this] { return result != nullptr; });
    return result;
  }
  ~Waiter() { ingot_result_free(result); }
};

class CoreWorld {
 public:
  static constexpr uint64_t kMemberBytes = 32u << 20;

  CoreWorld(int backend, int members, uint32_t queue_depth = 0) {
    char name[] = "/tmp/ingot-core-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    directory = name;
    ingot_options options{};
    options.backend = backend;
    options.queue_depth = queue_depth;
    ingot_error error{};
    if (ingot_context_create(&options, &context, &error) != 0) {
      std::printf("skipped: %s\n", error.message);
      context = nullptr;
      return;
    }
    for (int i = 0; i < members; ++i) open_member(directory + "/member" + std::to_string(i));
  }

  ~CoreWorld() {
    if (context != nullptr) ingot_context_destroy(context);
    for (const std::string& path : paths) unlink(path.c_str());
    rmdir(directory.c_str());
  }

  ingot_call call(Waiter& waiter, double deadline_ms = 0) {
    return {++next_id, 1, deadline_ms, Waiter::done, &waiter};
  }

  void open_member(const std::string& path) {
    Waiter waiter;
    const ingot_call request = call(waiter);
    ingot_member_options options{};
    options.create = 1;
    options.size_bytes = kMemberBytes;
    ingot_error error{};
    CHECK(ingot_member_open(context, path.c_str(), &options, &request, &error) == 0);
    CHECK(waiter.wait()->failed == 0);
    slots.push_back(static_cast<uint16_t>(waiter.result->member.slot));
    paths.push_back(path);
  }

  void faults(const char* rules) { CHECK(ingot_fault_configure(context, rules, nullptr) == 0); }

  ingot_context* context = nullptr;
  std::string directory;
  std::vector<uint16_t> slots;
  std::vector<std::string> paths;
  uint64_t next_id = 0;
};

/// One extent with all its columns, written from and read to ordinary memory.
struct Extent {
  explicit Extent(CoreWorld& owner, uint64_t bytes, uint64_t segment_bytes = 65536)
      : world(owner), stored(static_cast<double>(bytes)), segment(static_cast<double>(segment_bytes)), data(bytes),
        sums((bytes + segment_bytes - 1) / segment_bytes) {
    for (size_t i = 0; i < owner.slots.size() && i < INGOT_MAX_COPIES; ++i) members[i] = owner.slots[i];
    uint32_t state = 7;
    for (uint8_t& byte : data) byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  }

  /// Returns the status of the op.
  int write(Waiter& waiter) {
    const uint32_t none = 0, one = 1;
    const double zero = 0;
    const int32_t first = 0;
    const ingot_buffer memory{data.data(), data.size()};
    uint64_t raw_sum = 0, piece_sum = 0;
    uint8_t status = 9;
    ingot_write_columns columns{};
    columns.count = 1;
    columns.copy_member = members;
    columns.copy_offset_bytes = offsets;
    columns.raw_bytes = columns.stored_bytes = columns.piece_bytes = &stored;
    columns.segment_bytes = &segment;
    columns.piece_start = columns.sum_index = &none;
    columns.piece_count = &one;
    columns.pieces_count = 1;
    columns.piece_offset_bytes = columns.piece_source_offset_bytes = &zero;
    columns.piece_source = &first;
    columns.sources = &memory;
    columns.sources_count = 1;
    columns.segment_sums = sums.data();
    columns.segment_sums_count = sums.size();
    columns.raw_sums = &raw_sum;
    columns.piece_sums = &piece_sum;
    columns.status = &status;
    const ingot_call request = world.call(waiter);
    ingot_error error{};
    CHECK(ingot_write(world.context, &columns, &request, &error) == 0);
    waiter.wait();
    if (status == 0) CHECK(raw_sum == ingot_crc64(0, data.data(), data.size()) && piece_sum == raw_sum);
    return status;
  }

  int read(Waiter& waiter, void* to, double from, double length, double deadline_ms = 0) {
    const uint32_t none = 0;
    const double zero = 0;
    const ingot_buffer memory{to, static_cast<uint64_t>(length)};
    const uint32_t sum_index = static_cast<uint32_t>(from / segment);
    uint8_t status = 9;
    ingot_read_columns columns{};
    columns.count = 1;
    columns.copy_member = members;
    columns.copy_offset_bytes = offsets;
    columns.stored_bytes = &stored;
    columns.segment_bytes = &segment;
    columns.wanted_offset_bytes = &from;
    columns.wanted_bytes = &length;
    columns.sum_index = &sum_index;
    columns.sums = sums.data();
    columns.sums_count = sums.size();
    columns.destination = &none;
    columns.destination_offset_bytes = &zero;
    columns.destinations = &memory;
    columns.destinations_count = 1;
    columns.status = &status;
    const ingot_call request = world.call(waiter, deadline_ms);
    ingot_error error{};
    CHECK(ingot_read(world.context, &columns, &request, &error) == 0);
    waiter.wait();
    return status;
  }

  CoreWorld& world;
  uint16_t members[INGOT_MAX_COPIES] = {INGOT_NO_MEMBER, INGOT_NO_MEMBER, INGOT_NO_MEMBER};
  double offsets[INGOT_MAX_COPIES] = {0, 1 << 20, 2 << 20};
  double stored, segment;
  std::vector<uint8_t> data;
  std::vector<uint64_t> sums;
};
