// See gpu_lane.h.
#include "gpu_lane.h"

#include <algorithm>

#include "crc64.h"
#include "ingot_core.h"

namespace ingot::gpu {

/// Up to the GPU go jobs and segments, in that order; back come verdicts, sums and heads.
struct Lane::Control {
  ChunkJob jobs[kChunksPerRound];
  XorJob joins[kChunksPerRound];
  Segment segments[kSegmentsPerRound];
  uint32_t verdicts[kChunksPerRound];
  uint64_t sums[kSegmentsPerRound];
  uint8_t heads[kChunksPerRound][kHeadBytes];
};

int fast_index(uint32_t transform) {
  switch (transform) {
    case 1: return 0;
    case 2: return 1;
    case 3: return 2;
    case 5: return 3;
    default: return -1;
  }
}

namespace {
uint64_t rounded(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }
uint64_t pieces(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit; }
/// Not straight to its destination.
bool is_staged(const Chunk& chunk) { return chunk.raw_bytes != 0 || chunk.file != nullptr; }
}  // namespace

Status Lane::check(const char* what, CuResult result) const {
  return result == kCuSuccess ? Status() : driver_.failure(what, result);
}

Status Lane::open() {
  if (Status status = check("cuStreamCreate", driver_.stream_create(&stream_, kCuStreamNonBlocking)); !status.ok()) {
    return status;
  }
  const unsigned flags = kCuEventBlockingSync | kCuEventDisableTiming;
  if (Status status = check("cuEventCreate", driver_.event_create(&done_, flags)); !status.ok()) return status;
  return check("cuEventCreate", driver_.event_create(&follow_, kCuEventDisableTiming));
}

Lane::~Lane() {
  // Errors have nobody left to be told to; the context goes next and takes what is left.
  if (stream_ != nullptr) driver_.stream_synchronize(stream_);
  if (registered_ != nullptr) registered_->buffer_deregister(reinterpret_cast<void*>(staging_));
  if (scratch_ != 0) driver_.free(scratch_);
  if (staging_ != 0) driver_.free(staging_);
  if (control_on_gpu_ != 0) driver_.free(control_on_gpu_);
  if (control_ != nullptr) {
    driver_.host_unregister(control_);
    ingot_memory_free(control_, sizeof(Control));
  }
  if (follow_ != nullptr) driver_.event_destroy(follow_);
  if (done_ != nullptr) driver_.event_destroy(done_);
  if (stream_ != nullptr) driver_.stream_destroy(stream_);
}

Status Lane::follow(CuStream stream) {
  if (Status status = check("cuEventRecord", driver_.event_record(follow_, stream)); !status.ok()) return status;
  queued_ = true;
  return check("cuStreamWaitEvent", driver_.stream_wait(stream_, follow_, 0));
}

Status Lane::copy_in(CuAddress to, const void* from, uint64_t bytes) {
  queued_ = true;
  return check("cuMemcpyHtoDAsync", driver_.copy_to_device(to, from, bytes, stream_));
}
Status Lane::copy_out(void* to, CuAddress from, uint64_t bytes) {
  queued_ = true;
  return check("cuMemcpyDtoHAsync", driver_.copy_to_host(to, from, bytes, stream_));
}
Status Lane::copy_within(CuAddress to, CuAddress from, uint64_t bytes) {
  queued_ = true;
  return check("cuMemcpyDtoDAsync", driver_.copy_on_device(to, from, bytes, stream_));
}
Status Lane::clear(CuAddress at, uint64_t bytes) {
  queued_ = true;
  return check("cuMemsetD8Async", driver_.fill(at, 0, bytes, stream_));
}

Status Lane::wait() {
  if (!queued_) return {};
  queued_ = false;
  Status status = check("cuEventRecord", driver_.event_record(done_, stream_));
  if (status.ok()) status = check("cuEventSynchronize", driver_.event_synchronize(done_));
  // Whatever went wrong: nothing of ours is in flight any more when this returns.
  if (!status.ok()) static_cast<void>(driver_.stream_synchronize(stream_));
  return status;
}

/// How many of `chunks` from `first` on fit one round; at least one.
size_t Lane::fits(const std::vector<Chunk>& chunks, size_t first) {
  uint64_t bytes = 0, scratch = 0, stored_segments = 0, output_segments = 0;
  size_t count = 0;
  while (first + count < chunks.size() && count < kChunksPerRound) {
    const Chunk& chunk = chunks[first + count];
    if (is_staged(chunk)) bytes += rounded(chunk.stored_bytes, kStreamAlignment);
    if (chunk.is_delta) scratch += rounded(chunk.raw_bytes, kStreamAlignment);
    if (chunk.sums != nullptr) stored_segments += pieces(chunk.stored_bytes, chunk.segment_bytes);
    output_segments += pieces(chunk.raw_bytes, kOutputSegmentBytes);
    const uint64_t segments = std::max(stored_segments, output_segments);
    const bool fits = bytes <= kStagingBytes && scratch <= kScratchBytes && segments <= kSegmentsPerRound;
    if (count > 0 && !fits) break;
    ++count;
  }
  return count;
}

Status Lane::prepare(bool with_staging, bool with_scratch, bool with_files) {
  if (staging_ == 0 && with_staging) {
    CuAddress made = 0;
    if (Status status = check("cuMemAlloc for coded streams", driver_.allocate(&made, kStagingBytes)); !status.ok()) {
      return status;
    }
    staging_ = made;
  }
  if (scratch_ == 0 && with_scratch) {
    CuAddress made = 0;
    const CuResult result = driver_.allocate(&made, kScratchBytes);
    if (Status status = check("cuMemAlloc for differences", result); !status.ok()) return status;
    scratch_ = made;
  }
  if (with_files && registered_ == nullptr) {
    std::string reason;
    const Cufile* library = cufile(reason);
    if (library == nullptr) return {"E_UNSUPPORTED", 0, "cuFile cannot be used: " + reason};
    const CufileError made = library->buffer_register(reinterpret_cast<void*>(staging_), kStagingBytes, 0);
    if (made.error != 0) {
      return {"E_GPU", 0, "cuFileBufRegister failed (cuFile's error " + std::to_string(made.error) + ")"};
    }
    registered_ = library;
  }
  if (control_on_gpu_ == 0) {
    CuAddress made = 0;
    if (Status status = check("cuMemAlloc", driver_.allocate(&made, sizeof(Control))); !status.ok()) return status;
    control_on_gpu_ = made;
  }
  if (control_ != nullptr) return {};
  void* memory = ingot_memory_allocate(sizeof(Control));
  if (memory == nullptr) return {"E_NATIVE", 0, "out of memory for the GPU's control block"};
  const CuResult result = driver_.host_register(memory, sizeof(Control), kCuHostRegisterPortable);
  if (result != kCuSuccess) {
    ingot_memory_free(memory, sizeof(Control));
    return driver_.failure("cuMemHostRegister", result);
  }
  control_ = static_cast<Control*>(memory);
  return {};
}

/// What lies side by side on both sides goes in one copy.
Status Lane::stage(std::vector<Chunk>& chunks, size_t first, size_t count) {
  CuAddress free = staging_;
  const uint8_t* from = nullptr;
  CuAddress to = 0;
  uint64_t pending = 0;
  const auto flush = [&]() -> Status { return pending == 0 ? Status() : copy_in(to, from, pending); };
  for (size_t i = first; i < first + count; ++i) {
    Chunk& chunk = chunks[i];
    chunk.staged = is_staged(chunk) ? free : chunk.out;
    if (is_staged(chunk)) free += rounded(chunk.stored_bytes, kStreamAlignment);
    if (chunk.file != nullptr) continue;
    const bool follows = pending != 0 && chunk.stream == from + pending && chunk.staged == to + pending;
    const bool is_apart = !is_staged(chunk) && i > first && chunk.destination != chunks[i - 1].destination;
    if (!follows || is_apart || is_staged(chunk) != is_staged(chunks[i - 1])) {
      if (Status status = flush(); !status.ok()) return status;
      from = chunk.stream;
      to = chunk.staged;
      pending = 0;
    }
    pending += chunk.stored_bytes;
  }
  return flush();
}

/// What lies side by side on a member is read at once. What did not come is told in `arrived`.
void Lane::read_files(std::vector<Chunk>& chunks, size_t first, size_t count) {
  for (size_t i = first; i < first + count;) {
    const Chunk& head = chunks[i];
    size_t end = i + 1;
    uint64_t bytes = head.stored_bytes;
    while (head.file != nullptr && end < first + count) {
      const Chunk& next = chunks[end];
      const bool follows = next.file == head.file && next.file_offset_bytes == head.file_offset_bytes + bytes &&
                           next.staged == head.staged + bytes;
      if (!follows || bytes + next.stored_bytes > kFileReadBytes) break;
      bytes += next.stored_bytes;
      ++end;
    }
    if (head.file != nullptr) {
      uint64_t left = head.file->read(staging_, head.staged - staging_, head.file_offset_bytes, bytes);
      for (; i < end; ++i) {
        chunks[i].arrived = left >= chunks[i].stored_bytes;
        left -= std::min(left, chunks[i].stored_bytes);
      }
    }
    i = end;
  }
}

Status Lane::spread(const std::vector<Chunk>& chunks, size_t first, size_t count) {
  Status status;
  for (size_t i = first; status.ok() && i < first + count; ++i) {
    const Chunk& chunk = chunks[i];
    if (chunk.file == nullptr || chunk.raw_bytes != 0 || !chunk.stored_right) continue;
    status = copy_within(chunk.out, chunk.staged + chunk.skip_bytes, chunk.wanted_bytes);
  }
  return status;
}

Status Lane::launch(CuFunction function, uint32_t width, uint32_t height, void** parameters) {
  queued_ = true;
  return check("cuLaunchKernel", driver_.launch(function, width, height, 1, kGpuThreads, 1, 1, 0, stream_, parameters,
                                                nullptr));
}

Status Lane::sum(uint32_t segments) {
  CuAddress constants = kernels_.constants;
  CuAddress places = control_on_gpu_ + offsetof(Control, segments);
  CuAddress sums = control_on_gpu_ + offsetof(Control, sums);
  Status status = copy_in(places, control_->segments, segments * sizeof(Segment));
  void* parameters[] = {&constants, &places, &segments, &sums};
  const uint32_t resident = kernels_.tensor_sums ? kTensorResident : kTableResident;
  const uint32_t most = static_cast<uint32_t>(kernels_.multiprocessors) * resident;
  const uint32_t needed = (segments + kSegmentsEach - 1) / kSegmentsEach;
  if (status.ok()) status = launch(kernels_.sums, std::min(needed, most), 1, parameters);
  if (status.ok()) status = copy_out(control_->sums, sums, segments * sizeof(uint64_t));
  return status;
}

Status Lane::check_stored(std::vector<Chunk>& chunks, size_t first, size_t count) {
  uint32_t segments = 0;
  Status status;
  for (size_t i = first; i < first + count; ++i) {
    const Chunk& chunk = chunks[i];
    if (chunk.sums == nullptr) continue;
    if (chunk.file != nullptr && chunk.raw_bytes != 0 && status.ok()) {
      status = copy_out(control_->heads[i - first], chunk.staged, std::min<uint64_t>(kHeadBytes, chunk.stored_bytes));
    }
    for (uint64_t at = 0; at < chunk.stored_bytes; at += chunk.segment_bytes) {
      const auto bytes = static_cast<uint32_t>(std::min(chunk.segment_bytes, chunk.stored_bytes - at));
      control_->segments[segments++] = {reinterpret_cast<const uint8_t*>(chunk.staged + at), bytes, 0};
    }
  }
  if (segments == 0) return {};
  if (status.ok()) status = sum(segments);
  const Status ended = wait();
  if (!status.ok()) return status;
  if (!ended.ok()) return ended;
  segments = 0;
  for (size_t i = first; i < first + count; ++i) {
    Chunk& chunk = chunks[i];
    if (chunk.sums == nullptr) continue;
    const auto own = static_cast<uint32_t>(pieces(chunk.stored_bytes, chunk.segment_bytes));
    chunk.stored_right = chunk.arrived && std::equal(chunk.sums, chunk.sums + own, control_->sums + segments);
    if (chunk.file != nullptr) chunk.stream = control_->heads[i - first];
    segments += own;
  }
  return {};
}

/// Chunks of one transform side by side share a launch.
Status Lane::launch_decoders(const std::vector<Chunk*>& chunks, bool fast) {
  const CuAddress jobs = control_on_gpu_ + offsetof(Control, jobs);
  const CuAddress verdicts = control_on_gpu_ + offsetof(Control, verdicts);
  for (size_t first = 0; first < chunks.size();) {
    const uint32_t transform = chunks[first]->transform;
    const int index = fast ? fast_index(transform) : -1;
    uint32_t most = 0;
    size_t end = first;
    for (; end < chunks.size() && (!fast || chunks[end]->transform == transform); ++end) {
      most = std::max(most, chunks[end]->raw_bytes);
    }
    CuAddress mine = jobs + first * sizeof(ChunkJob);
    CuAddress said = verdicts + first * sizeof(uint32_t);
    void* parameters[] = {&mine, &said};
    const uint32_t width = index < 0 ? any_grid_width(most) : fast_grid_width(transform, most);
    const CuFunction kernel = index < 0 ? kernels_.any : kernels_.fast[index];
    const Status status = launch(kernel, width, static_cast<uint32_t>(end - first), parameters);
    if (!status.ok()) return status;
    first = end;
  }
  return {};
}

/// Decoded differences into their bases.
Status Lane::join(const std::vector<Chunk*>& chunks) {
  uint32_t count = 0, most = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (!chunks[i]->is_delta) continue;
    control_->joins[count++] = {control_->jobs[i].out, reinterpret_cast<uint8_t*>(chunks[i]->out), chunks[i]->raw_bytes,
                                static_cast<uint32_t>(i)};
    most = std::max(most, chunks[i]->raw_bytes);
  }
  if (count == 0) return {};
  CuAddress jobs = control_on_gpu_ + offsetof(Control, joins);
  CuAddress verdicts = control_on_gpu_ + offsetof(Control, verdicts);
  Status status = copy_in(jobs, control_->joins, count * sizeof(XorJob));
  void* parameters[] = {&jobs, &verdicts};
  if (status.ok()) status = launch(kernels_.join, (most + kXorBytesEach - 1) / kXorBytesEach, count, parameters);
  return status;
}

/// One pass over staged chunks, sorted by transform.
Status Lane::decode(const std::vector<Chunk*>& chunks, bool fast) {
  uint32_t segments = 0;
  CuAddress scratch = scratch_;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Chunk& chunk = *chunks[i];
    const CuAddress out = chunk.is_delta ? scratch : chunk.out;
    if (chunk.is_delta) scratch += rounded(chunk.raw_bytes, kStreamAlignment);
    control_->jobs[i] = {reinterpret_cast<const uint8_t*>(chunk.staged), reinterpret_cast<uint8_t*>(out),
                         static_cast<uint32_t>(chunk.stored_bytes), chunk.raw_bytes, chunk.transform, 0};
    for (uint32_t at = 0; at < chunk.raw_bytes; at += kOutputSegmentBytes) {
      const uint32_t bytes = std::min(kOutputSegmentBytes, chunk.raw_bytes - at);
      control_->segments[segments++] = {reinterpret_cast<const uint8_t*>(chunk.out + at), bytes, 0};
    }
  }
  const CuAddress verdicts = control_on_gpu_ + offsetof(Control, verdicts);
  Status status = copy_in(control_on_gpu_ + offsetof(Control, jobs), control_->jobs, chunks.size() * sizeof(ChunkJob));
  if (status.ok()) status = clear(verdicts, chunks.size() * sizeof(uint32_t));
  if (status.ok()) status = launch_decoders(chunks, fast);
  if (status.ok()) status = join(chunks);
  if (status.ok()) status = copy_out(control_->verdicts, verdicts, chunks.size() * sizeof(uint32_t));
  if (status.ok()) status = sum(segments);
  const Status ended = wait();
  if (!status.ok()) return status;
  if (!ended.ok()) return ended;
  uint32_t segment = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    Chunk& chunk = *chunks[i];
    chunk.verdict = control_->verdicts[i];
    chunk.raw_sum = 0;
    for (uint32_t at = 0; at < chunk.raw_bytes; at += kOutputSegmentBytes) {
      const uint32_t bytes = std::min(kOutputSegmentBytes, chunk.raw_bytes - at);
      chunk.raw_sum = crc64_combine(chunk.raw_sum, control_->sums[segment++], bytes);
    }
  }
  return {};
}

Status Lane::move(std::vector<Chunk>& chunks, bool (*look)(Chunk&)) {
  Status status;
  for (size_t first = 0; status.ok() && first < chunks.size();) {
    const size_t count = fits(chunks, first);
    bool staged = false, deltas = false, files = false, needs_control = false;
    for (size_t i = first; i < first + count; ++i) {
      staged = staged || is_staged(chunks[i]);
      deltas = deltas || chunks[i].is_delta;
      files = files || chunks[i].file != nullptr;
      needs_control = needs_control || staged || chunks[i].sums != nullptr;
    }
    if (needs_control) status = prepare(staged, deltas, files);
    if (status.ok()) status = stage(chunks, first, count);
    if (status.ok() && files) read_files(chunks, first, count);
    if (status.ok()) status = check_stored(chunks, first, count);
    if (status.ok() && files) status = spread(chunks, first, count);
    std::vector<Chunk*> round;
    for (size_t i = first; status.ok() && i < first + count; ++i) {
      if (chunks[i].raw_bytes == 0 || !chunks[i].stored_right) continue;
      chunks[i].is_right = chunks[i].stream != nullptr && look(chunks[i]);
      if (chunks[i].is_right) round.push_back(&chunks[i]);
    }
    first += count;
    std::stable_sort(round.begin(), round.end(),
                     [](const Chunk* a, const Chunk* b) { return a->transform < b->transform; });
    if (status.ok() && !round.empty()) status = decode(round, true);
    // What the fast kernels leave is decoded by the one for any stream, from where it is staged.
    std::vector<Chunk*> left;
    for (Chunk* chunk : round) {
      if (chunk->verdict == kDeferred) left.push_back(chunk);
    }
    if (status.ok() && !left.empty()) status = decode(left, false);
  }
  const Status ended = wait();
  return status.ok() ? ended : status;
}

}  // namespace ingot::gpu
