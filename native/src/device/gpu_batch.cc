// Batches of a GPU: verified host memory to its destinations on the GPU, coded chunks decoded on the way.
//
// Invariants
//   1. The call is delivered once, when the GPU touches no memory of it any more; on an error of the driver, too.
//   2. A chunk counts as right only when the sums of its stored bytes match (on the CPU before, or here), the stream
//      is that of its record, the kernels accept it, and the sum of what came out is that of its record. What is not
//      right is zeroed at its destination.
//   3. A batch that was aborted before a lane took it did nothing; one that runs is run to its end.
#include <cerrno>
#include <memory>
#include <set>

#include "batch.h"
#include "chunk.h"
#include "core_limits.h"
#include "gpu_device.h"

namespace ingot {
namespace {

using gpu::Chunk;
using gpu::CuAddress;
using gpu::GpuDevice;
using gpu::Lane;

enum Verdict : uint32_t { kRight = 0, kBroken = 1, kOther = 2, kWrongSum = 3, kWrongStored = 4, kNotArrived = 5 };

class GpuCopy final : public gpu::GpuJob {
 public:
  GpuCopy(Context& context, Call call, const ingot_gpu_columns& columns)
      : context_(context), call_(std::move(call)), columns_(columns),
        destinations_(columns.destinations, columns.destinations + columns.destinations_count),
        streams_(columns.streams, columns.streams + columns.streams_count) {}

  const char* adopt() {
    for (uint32_t i = 0; i < columns_.count; ++i) {
      Chunk& chunk = chunks_.emplace_back();
      const uint64_t raw_bytes = whole(columns_.raw_bytes[i]);
      chunk.stored_bytes = whole(columns_.source_bytes[i]);
      if (const char* fault = adopt_source(i, chunk); fault != nullptr) return fault;
      if (raw_bytes > INGOT_MAX_EXTENT_BYTES) return "rawBytes";
      chunk.raw_bytes = static_cast<uint32_t>(raw_bytes);
      if (raw_bytes != 0 && chunk.stored_bytes > INGOT_MAX_EXTENT_BYTES) return "stored bytes";
      chunk.ids = columns_.ids[i];
      chunk.is_delta = raw_bytes != 0 && (chunk.ids >> 8 & 0xff) != 0;
      raw_sums_.push_back(columns_.raw_sums[i]);
      if (columns_.destination[i] >= columns_.destinations_count) return "destination";
      const ingot_gpu_buffer& target = columns_.destinations[columns_.destination[i]];
      const uint64_t at = whole(columns_.destination_offset_bytes[i]);
      const uint64_t needed = raw_bytes != 0 ? raw_bytes : chunk.wanted_bytes;
      if (at > target.length_bytes || needed > target.length_bytes - at) return "destination range";
      chunk.out = target.address + at;
      chunk.destination = columns_.destination[i];
      chunk.segment_bytes = columns_.segment_bytes[i];
      if (chunk.raw_bytes != 0 || chunk.segment_bytes != 0) needs_kernels_ = true;
      if (chunk.segment_bytes == 0) continue;
      if (chunk.segment_bytes < kSectorBytes || chunk.stored_bytes > INGOT_MAX_EXTENT_BYTES) return "segmentBytes";
      const uint64_t sums = (chunk.stored_bytes + chunk.segment_bytes - 1) / chunk.segment_bytes;
      if (columns_.sum_index[i] + sums > columns_.sums_count) return "sumIndex";
      chunk.sums = columns_.sums + columns_.sum_index[i];
    }
    return nullptr;
  }

  /// Host memory, or a stretch of a member.
  const char* adopt_source(uint32_t i, Chunk& chunk) {
    const uint64_t from = whole(columns_.source_offset_bytes[i]);
    const uint32_t slot = columns_.member[i];
    if (slot == INGOT_NO_MEMBER) {
      if (columns_.source[i] >= columns_.sources_count) return "source";
      const ingot_buffer& source = columns_.sources[columns_.source[i]];
      if (from > source.length_bytes || chunk.stored_bytes > source.length_bytes - from) return "source range";
      chunk.stream = static_cast<const uint8_t*>(source.data) + from;
      chunk.wanted_bytes = chunk.stored_bytes;
      return nullptr;
    }
    const std::shared_ptr<Member> member = context_.member(slot);
    if (member == nullptr) return "member";
    const uint64_t size = member->file.size_bytes;
    if (from % kSectorBytes != 0 || chunk.stored_bytes % kSectorBytes != 0) return "member sectors";
    if (chunk.stored_bytes > INGOT_MAX_EXTENT_BYTES || from > size || chunk.stored_bytes > size - from) {
      return "member range";
    }
    chunk.file = context_.cufile_of(*member);
    if (chunk.file == nullptr) return "a member that cuFile does not take";
    path_ = member->cufile_path;
    chunk.file_offset_bytes = from;
    chunk.skip_bytes = whole(columns_.skip_bytes[i]);
    chunk.wanted_bytes = whole(columns_.wanted_bytes[i]);
    if (columns_.segment_bytes[i] == 0) return "a member's bytes without sums";
    if (chunk.skip_bytes > chunk.stored_bytes || chunk.wanted_bytes > chunk.stored_bytes - chunk.skip_bytes) {
      return "wanted range";
    }
    members_.insert(member);
    return nullptr;
  }

  void run(GpuDevice& device, Lane& lane) override {
    auto result = std::make_unique<ResultBox>();
    result->head.kind = INGOT_RESULT_GPU;
    const int refusal = call_.cancel->refusal();
    for (uint32_t i = 0; i < columns_.count; ++i) {
      columns_.status[i] = refusal == ECANCELED ? INGOT_OP_ABORTED : INGOT_OP_FAILED;
      columns_.verdict[i] = kRight;
    }
    if (refusal == 0) {
      Status status;
      try {
        status = move(device, lane);
      } catch (const std::bad_alloc&) {
        static_cast<void>(lane.wait());
        status = {"E_NATIVE", ENOMEM, "out of memory in the native core"};
      }
      result->head.failed = status.ok() ? 0 : 1;
      status.report(&result->head.error);
      if (status.ok()) result->head.bytes_by_path[path_] = moved_;
      context_.count_gpu(path_, moved_);
    }
    Context& context = context_;
    const Call call = call_;
    delete this;
    context.deliver(call, std::move(result));
  }

 private:
  Status move(GpuDevice& device, Lane& lane) {
    for (const ingot_gpu_buffer& each : destinations_) {
      if (Status status = device.check_memory(each.address, each.length_bytes); !status.ok()) return status;
    }
    for (const uint64_t stream : std::set<uint64_t>(streams_.begin(), streams_.end())) {
      if (stream == 0) continue;
      if (Status status = lane.follow(reinterpret_cast<gpu::CuStream>(stream)); !status.ok()) return status;
    }
    if (needs_kernels_ && !device.has_kernels()) return {"E_UNSUPPORTED", 0, "this build has no CUDA kernels"};
    Status status = lane.move(chunks_, gpu::is_of_record);
    for (uint32_t i = 0; status.ok() && i < chunks_.size(); ++i) {
      const Chunk& chunk = chunks_[i];
      moved_ += chunk.stored_bytes;
      uint32_t& verdict = columns_.verdict[i];
      if (!chunk.arrived) verdict = kNotArrived;
      else if (!chunk.stored_right) verdict = kWrongStored;
      else if (!chunk.is_right) verdict = kOther;
      else if (chunk.verdict != gpu::kRight) verdict = kBroken;
      else if (chunk.raw_bytes != 0 && chunk.raw_sum != raw_sums_[i]) verdict = kWrongSum;
      if (verdict == kRight) continue;
      status = lane.clear(chunk.out, chunk.raw_bytes != 0 ? chunk.raw_bytes : chunk.wanted_bytes);
    }
    const Status ended = lane.wait();
    if (!status.ok()) return status;
    if (!ended.ok()) return ended;
    for (uint32_t i = 0; i < chunks_.size(); ++i) {
      columns_.status[i] = columns_.verdict[i] == kRight ? INGOT_OP_OK : INGOT_OP_FAILED;
    }
    return {};
  }

  Context& context_;
  const Call call_;
  // Of its pointers only `verdict`, `status` and `sums` are good after the call.
  const ingot_gpu_columns columns_;
  const std::vector<ingot_gpu_buffer> destinations_;
  const std::vector<uint64_t> streams_;
  std::vector<Chunk> chunks_;
  std::vector<uint64_t> raw_sums_;
  /// Members that cuFile reads: they cannot end before the batch.
  std::set<std::shared_ptr<Member>> members_;
  int path_ = INGOT_PATH_PINNED;
  bool needs_kernels_ = false;
  uint64_t moved_ = 0;
};

/// GPU memory to host memory.
class GpuFetch final : public gpu::GpuJob {
 public:
  GpuFetch(Context& context, Call call, CuAddress from, ingot_buffer to, uint64_t stream)
      : context_(context), call_(std::move(call)), from_(from), to_(to), stream_(stream) {}

  void run(GpuDevice& device, Lane& lane) override {
    auto result = std::make_unique<ResultBox>();
    result->head.kind = INGOT_RESULT_GPU;
    Status status = device.check_memory(from_, to_.length_bytes);
    if (status.ok() && call_.cancel->refusal() == 0) {
      if (stream_ != 0) status = lane.follow(reinterpret_cast<gpu::CuStream>(stream_));
      if (status.ok()) status = lane.copy_out(to_.data, from_, to_.length_bytes);
      const Status ended = lane.wait();
      if (status.ok()) status = ended;
    }
    result->head.failed = status.ok() ? 0 : 1;
    status.report(&result->head.error);
    Context& context = context_;
    const Call call = call_;
    delete this;
    context.deliver(call, std::move(result));
  }

 private:
  Context& context_;
  const Call call_;
  const CuAddress from_;
  const ingot_buffer to_;
  const uint64_t stream_;
};

}  // namespace

bool gpu::is_of_record(Chunk& chunk) {
  codec::Stream parsed;
  if (codec::parse_head(chunk.stream, chunk.stream, chunk.stored_bytes, parsed) != codec::Fault::kNone) return false;
  const uint32_t ids = parsed.transform | parsed.delta << 8 | codec::stream_codec(parsed) << 16;
  chunk.transform = parsed.transform;
  return ids == chunk.ids && parsed.raw_bytes == chunk.raw_bytes;
}

Status make_gpu_copy(Context& context, const ingot_gpu_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  GpuDevice* device = context.gpu(columns.gpu);
  if (device == nullptr) return contract_failure("copy to a GPU that is not open");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto job = std::make_unique<GpuCopy>(context, pending, columns);
  if (const char* fault = job->adopt(); fault != nullptr) {
    context.forget(pending.id);
    return contract_failure(std::string("gpu copy: ") + fault);
  }
  device->submit(job.release());
  return {};
}

Status make_gpu_fetch(Context& context, uint32_t gpu, uint64_t address, ingot_buffer to, uint64_t stream,
                      const ingot_call& call) {
  GpuDevice* device = context.gpu(gpu);
  if (device == nullptr) return contract_failure("fetch from a GPU that is not open");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  device->submit(new GpuFetch(context, pending, address, to, stream));
  return {};
}

}  // namespace ingot
