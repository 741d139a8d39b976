// Batches of a GPU: verified host memory to its destinations on the GPU, coded chunks decoded on the way.
//
// Invariants
//   1. The call is delivered once, when the GPU touches no memory of it any more; on an error of the driver, too.
//   2. A chunk counts as right only when the stream is that of its record, the kernels accept it, and the sum of
//      what came out is that of its record. What is not right is zeroed at its destination.
//   3. A batch that was aborted before a lane took it did nothing; one that runs is run to its end.
#include <cerrno>
#include <memory>
#include <set>

#include "batch.h"
#include "chunk.h"
#include "gpu_device.h"

namespace ingot {
namespace {

using gpu::Chunk;
using gpu::CuAddress;
using gpu::GpuDevice;
using gpu::Lane;

enum Verdict : uint32_t { kRight = 0, kBroken = 1, kOther = 2, kWrongSum = 3 };

struct GpuOp {
  const uint8_t* source = nullptr;
  CuAddress target = 0;
  uint64_t bytes = 0;           // in host memory: of the stretch, or of the stream
  uint64_t raw_bytes = 0;       // of the chunk; 0: a stretch that goes as it is
  uint32_t ids = 0;
  uint64_t raw_sum = 0;
};

class GpuCopy final : public gpu::GpuJob {
 public:
  GpuCopy(Context& context, Call call, const ingot_gpu_columns& columns)
      : context_(context), call_(std::move(call)), columns_(columns),
        destinations_(columns.destinations, columns.destinations + columns.destinations_count),
        streams_(columns.streams, columns.streams + columns.streams_count) {}

  const char* adopt() {
    for (uint32_t i = 0; i < columns_.count; ++i) {
      GpuOp& op = ops_.emplace_back();
      if (columns_.source[i] >= columns_.sources_count) return "source";
      const ingot_buffer& source = columns_.sources[columns_.source[i]];
      const uint64_t from = whole(columns_.source_offset_bytes[i]);
      op.bytes = whole(columns_.source_bytes[i]);
      if (from > source.length_bytes || op.bytes > source.length_bytes - from) return "source range";
      op.source = static_cast<const uint8_t*>(source.data) + from;
      op.raw_bytes = whole(columns_.raw_bytes[i]);
      if (op.raw_bytes > INGOT_MAX_EXTENT_BYTES) return "rawBytes";
      if (op.raw_bytes != 0 && op.bytes > INGOT_MAX_EXTENT_BYTES) return "stored bytes";
      op.ids = columns_.ids[i];
      op.raw_sum = columns_.raw_sums[i];
      if (columns_.destination[i] >= columns_.destinations_count) return "destination";
      const ingot_gpu_buffer& target = columns_.destinations[columns_.destination[i]];
      const uint64_t at = whole(columns_.destination_offset_bytes[i]);
      const uint64_t needed = op.raw_bytes != 0 ? op.raw_bytes : op.bytes;
      if (at > target.length_bytes || needed > target.length_bytes - at) return "destination range";
      op.target = target.address + at;
    }
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
      if (status.ok()) result->head.bytes_by_path[INGOT_PATH_PINNED] = moved_;
      context_.count_gpu(moved_);
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
    const std::set<uint64_t> streams(streams_.begin(), streams_.end());
    for (const uint64_t stream : streams) {
      if (stream == 0) continue;
      if (Status status = lane.follow(reinterpret_cast<gpu::CuStream>(stream)); !status.ok()) return status;
    }
    std::vector<Chunk> chunks;
    std::vector<uint32_t> of_chunk;
    Status status;
    for (uint32_t i = 0; status.ok() && i < ops_.size(); ++i) {
      const GpuOp& op = ops_[i];
      if (op.raw_bytes == 0) {
        if (op.bytes > 0) status = lane.copy_in(op.target, op.source, op.bytes);
        moved_ += op.bytes;
        continue;
      }
      Chunk chunk;
      columns_.verdict[i] = look_at(op, chunk);
      if (columns_.verdict[i] != kRight) continue;
      moved_ += op.bytes;
      chunks.push_back(chunk);
      of_chunk.push_back(i);
    }
    if (status.ok() && !chunks.empty() && !device.has_kernels()) {
      status = {"E_UNSUPPORTED", 0, "this build has no CUDA kernels"};
    }
    if (status.ok()) status = lane.decode(chunks);
    for (size_t i = 0; status.ok() && i < chunks.size(); ++i) {
      const GpuOp& op = ops_[of_chunk[i]];
      if (chunks[i].verdict != gpu::kRight) columns_.verdict[of_chunk[i]] = kBroken;
      else if (chunks[i].raw_sum != op.raw_sum) columns_.verdict[of_chunk[i]] = kWrongSum;
    }
    for (uint32_t i = 0; status.ok() && i < ops_.size(); ++i) {
      if (columns_.verdict[i] != kRight) status = lane.clear(ops_[i].target, ops_[i].raw_bytes);
    }
    const Status ended = lane.wait();
    if (!status.ok()) return status;
    if (!ended.ok()) return ended;
    for (uint32_t i = 0; i < ops_.size(); ++i) {
      columns_.status[i] = columns_.verdict[i] == kRight ? INGOT_OP_OK : INGOT_OP_FAILED;
    }
    return {};
  }

  /// The head, on the CPU: whether this is the stream of its record, and what the kernels need to know.
  static uint32_t look_at(const GpuOp& op, Chunk& chunk) {
    codec::Stream parsed;
    if (codec::parse_head(op.source, op.source, op.bytes, parsed) != codec::Fault::kNone) return kBroken;
    const uint32_t ids = parsed.transform | parsed.delta << 8 | codec::stream_codec(parsed) << 16;
    if (ids != op.ids || parsed.raw_bytes != op.raw_bytes) return kOther;
    chunk.stream = op.source;
    chunk.out = op.target;
    chunk.stored_bytes = static_cast<uint32_t>(op.bytes);
    chunk.raw_bytes = static_cast<uint32_t>(op.raw_bytes);
    chunk.transform = parsed.transform;
    return kRight;
  }

  Context& context_;
  const Call call_;
  // Of its pointers only `verdict` and `status` are good after the call.
  const ingot_gpu_columns columns_;
  const std::vector<ingot_gpu_buffer> destinations_;
  const std::vector<uint64_t> streams_;
  std::vector<GpuOp> ops_;
  uint64_t moved_ = 0;
};

/// GPU memory to host memory.
class GpuFetch final : public gpu::GpuJob {
 public:
  GpuFetch(Context& context, Call call, CuAddress from, ingot_buffer to)
      : context_(context), call_(std::move(call)), from_(from), to_(to) {}

  void run(GpuDevice& device, Lane& lane) override {
    auto result = std::make_unique<ResultBox>();
    result->head.kind = INGOT_RESULT_GPU;
    Status status = device.check_memory(from_, to_.length_bytes);
    if (status.ok() && call_.cancel->refusal() == 0) {
      status = lane.copy_out(to_.data, from_, to_.length_bytes);
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
};

}  // namespace

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

Status make_gpu_fetch(Context& context, uint32_t gpu, uint64_t address, ingot_buffer to, const ingot_call& call) {
  GpuDevice* device = context.gpu(gpu);
  if (device == nullptr) return contract_failure("fetch from a GPU that is not open");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  device->submit(new GpuFetch(context, pending, address, to));
  return {};
}

}  // namespace ingot
