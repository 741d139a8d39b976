// The batch columns of a read, as a broken or hostile caller might fill them, through the C ABI.
//
// A member holds known bytes. The input makes a batch of a few reads, with columns that are mostly sensible and
// sometimes anything. Whatever they say: the call is refused, or it ends once, and then
//   1. an op reported good delivered exactly the bytes that the member holds there;
//   2. no byte of a destination outside the wanted ranges was touched;
//   3. the status of every op is one of the three.
//
// The context and the member live for the whole run (making them costs milliseconds); no input writes to them.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <mutex>
#include <string>

#include "fuzz_input.h"
#include "ingot_core.h"

namespace {

constexpr uint64_t kMemberBytes = 1u << 20;
constexpr uint64_t kSegmentBytes = 4096;
constexpr size_t kOpsMax = 4;
constexpr size_t kDestinationBytes = 65536;
constexpr uint8_t kUntouched = 0xa5;

struct Waiter {
  std::mutex mutex;
  std::condition_variable ready;
  ingot_result* result = nullptr;
  int calls = 0;
  static void done(void* user, ingot_result* result) {
    auto* waiter = static_cast<Waiter*>(user);
    const std::lock_guard lock(waiter->mutex);
    waiter->result = result;
    ++waiter->calls;
    waiter->ready.notify_all();
  }
  ingot_result* wait() {
    std::unique_lock lock(mutex);
    ready.wait(lock, [this] { return result != nullptr; });
    return result;
  }
  ~Waiter() { ingot_result_free(result); }
};

/// One member of known bytes behind a descriptor in /proc, opened read-only.
struct World {
  ingot_context* context = nullptr;
  uint16_t slot = 0;
  int fd = -1;
  uint64_t next_id = 0;
  std::vector<uint8_t> bytes = std::vector<uint8_t>(kMemberBytes);
  std::array<uint64_t, kMemberBytes / kSegmentBytes> sums{};

  World() {
    uint32_t state = 7;
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] = ingot_crc64(0, bytes.data() + i * kSegmentBytes, kSegmentBytes);
    fd = memfd_create("ingot-fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    ingot_options options{};
    options.backend = INGOT_BACKEND_THREADS;
    options.worker_count = 1;
    ingot_error error{};
    FUZZ_CHECK(ingot_context_create(&options, &context, &error) == 0);
    Waiter waiter;
    const ingot_call call{++next_id, 1, 0, Waiter::done, &waiter};
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const ingot_member_options member{};
    FUZZ_CHECK(ingot_member_open(context, path.c_str(), &member, &call, &error) == 0);
    if (waiter.wait()->failed != 0) std::fprintf(stderr, "%s\n", waiter.result->error.message);
    FUZZ_CHECK(waiter.result->failed == 0);
    slot = static_cast<uint16_t>(waiter.result->member.slot);
  }
  ~World() {
    ingot_context_destroy(context);
    close(fd);
  }
};

World& world() {
  static World only;
  return only;
}

struct Batch {
  std::array<uint16_t, kOpsMax * INGOT_MAX_COPIES> copy_member{};
  std::array<double, kOpsMax * INGOT_MAX_COPIES> copy_offset{};
  std::array<double, kOpsMax> stored{}, segment{}, wanted_offset{}, wanted{}, destination_offset{};
  std::array<uint32_t, kOpsMax> sum_index{}, destination{};
  std::array<uint8_t, kOpsMax> status{};
  std::vector<uint64_t> sums;
  bool odd = false;
};

/// A column's value: what is sensible, or, one time in eight, any double at all.
double number(FuzzInput& input, double sensible, bool& odd) {
  if (input.byte() % 8 != 7) return sensible;
  odd = true;
  const uint64_t bits = input.bits(8);
  double value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void draw_op(FuzzInput& input, Batch& batch, size_t op) {
  const World& w = world();
  const uint64_t first = input.below(w.sums.size());
  const uint64_t segments = 1 + input.below(w.sums.size() - first < 8 ? w.sums.size() - first : 8);
  const uint64_t stored = segments * kSegmentBytes;
  const uint64_t from = input.below(stored);
  const uint64_t length = 1 + input.below(stored - from);
  for (size_t copy = 0; copy < INGOT_MAX_COPIES; ++copy) {
    const uint8_t kind = copy == 0 ? 0 : input.byte() % 4;
    const size_t at = op * INGOT_MAX_COPIES + copy;
    batch.copy_member[at] = kind == 0 ? w.slot : kind == 1 ? static_cast<uint16_t>(input.bits(2)) : INGOT_NO_MEMBER;
    batch.copy_offset[at] = number(input, static_cast<double>(first * kSegmentBytes), batch.odd);
  }
  batch.stored[op] = number(input, static_cast<double>(stored), batch.odd);
  batch.segment[op] = number(input, static_cast<double>(kSegmentBytes), batch.odd);
  batch.wanted_offset[op] = number(input, static_cast<double>(from), batch.odd);
  batch.wanted[op] = number(input, static_cast<double>(length), batch.odd);
  batch.sum_index[op] = static_cast<uint32_t>(batch.sums.size());
  if (input.byte() % 16 == 15) batch.sum_index[op] = static_cast<uint32_t>(input.bits(4));
  for (uint64_t k = from / kSegmentBytes; k * kSegmentBytes < from + length; ++k) {
    batch.sums.push_back(w.sums[first + k]);
  }
  if (input.byte() % 8 == 7) batch.sums.back() ^= 1ULL << (input.byte() % 64);
  batch.destination[op] = static_cast<uint32_t>(op);
  if (input.byte() % 16 == 15) batch.destination[op] = static_cast<uint32_t>(input.bits(4));
  batch.destination_offset[op] = number(input, static_cast<double>(input.below(16)), batch.odd);
}

/// Holds a good op to the member's bytes. Ops whose columns were drawn at random are held to points 2 and 3 only.
void check_op(const Batch& batch, size_t op, const std::vector<std::vector<uint8_t>>& destinations) {
  FUZZ_CHECK(batch.status[op] <= INGOT_OP_ABORTED);
  if (batch.odd) return;
  const std::vector<uint8_t>& to = destinations[batch.destination[op]];
  const auto at = static_cast<size_t>(batch.destination_offset[op]);
  const auto length = static_cast<size_t>(batch.wanted[op]);
  const auto from = static_cast<size_t>(batch.copy_offset[op * INGOT_MAX_COPIES] + batch.wanted_offset[op]);
  for (size_t i = 0; i < at; ++i) FUZZ_CHECK(to[i] == kUntouched);
  for (size_t i = at + length; i < to.size(); ++i) FUZZ_CHECK(to[i] == kUntouched);
  if (batch.status[op] != INGOT_OP_OK) return;
  FUZZ_CHECK(std::memcmp(to.data() + at, world().bytes.data() + from, length) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  World& w = world();
  Batch batch;
  const size_t count = 1 + input.byte() % kOpsMax;
  for (size_t op = 0; op < count; ++op) draw_op(input, batch, op);
  // Two ops into one destination race by the caller's own will: then only the end of the call is looked at.
  bool shared = false;
  for (size_t op = 0; op < count; ++op) shared = shared || batch.destination[op] != op;
  std::vector<std::vector<uint8_t>> destinations(count, std::vector<uint8_t>(kDestinationBytes, kUntouched));
  std::vector<ingot_buffer> buffers;
  for (auto& each : destinations) buffers.push_back({each.data(), each.size()});
  ingot_read_columns columns{};
  columns.count = static_cast<uint32_t>(count);
  columns.copy_member = batch.copy_member.data();
  columns.copy_offset_bytes = batch.copy_offset.data();
  columns.stored_bytes = batch.stored.data();
  columns.segment_bytes = batch.segment.data();
  columns.wanted_offset_bytes = batch.wanted_offset.data();
  columns.wanted_bytes = batch.wanted.data();
  columns.sum_index = batch.sum_index.data();
  columns.sums = batch.sums.data();
  columns.sums_count = batch.sums.size();
  columns.destination = batch.destination.data();
  columns.destination_offset_bytes = batch.destination_offset.data();
  columns.destinations = buffers.data();
  columns.destinations_count = buffers.size();
  columns.status = batch.status.data();
  Waiter waiter;
  const ingot_call call{++w.next_id, static_cast<uint32_t>(input.byte() % 3), 0, Waiter::done, &waiter};
  ingot_error error{};
  if (ingot_read(w.context, &columns, &call, &error) != 0) {
    FUZZ_CHECK(error.code[0] != 0 && waiter.calls == 0);
    return 0;
  }
  waiter.wait();
  FUZZ_CHECK(waiter.calls == 1);
  if (shared) return 0;
  for (size_t op = 0; op < count; ++op) check_op(batch, op, destinations);
  return 0;
}
