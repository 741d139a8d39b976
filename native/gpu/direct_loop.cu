// The plain loop that loads are compared with: threads read with O_DIRECT into pinned memory and copy it to a GPU.
//
//   nvcc -O2 -o direct_loop native/gpu/direct_loop.cu && ./direct_loop THREADS read|gpu RUNS BYTES FILE...
//
// It reads the first BYTES of each file in pieces of 8 MiB, in rotation over the files; nothing is verified. `read`
// stops at the pinned memory. One line a run: GB/s, then core-seconds a GB.
#include <cuda_runtime.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      std::printf("%s:%d: %s failed\n", __FILE__, __LINE__, #condition);     \
      std::exit(1);                                                          \
    }                                                                        \
  } while (false)

namespace {

constexpr size_t kPieceBytes = 8 << 20;

double core_seconds() {
  rusage used{};
  CHECK(getrusage(RUSAGE_SELF, &used) == 0);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * time.tv_usec; };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

struct Lane {
  char* memory[2];
  cudaStream_t stream;
  cudaEvent_t done[2];
};

}  // namespace

int main(int count, char** arguments) {
  CHECK(count > 5);
  const auto threads = static_cast<unsigned>(std::atoi(arguments[1]));
  const bool to_gpu = std::strcmp(arguments[2], "gpu") == 0;
  const int runs = std::atoi(arguments[3]);
  const auto bytes = static_cast<size_t>(std::atoll(arguments[4])) / kPieceBytes * kPieceBytes;
  std::vector<int> files;
  for (int i = 5; i < count; ++i) {
    files.push_back(open(arguments[i], O_RDONLY | O_DIRECT));
    CHECK(files.back() >= 0);
  }
  const size_t pieces = bytes / kPieceBytes * files.size();
  char* target = nullptr;
  if (to_gpu) CHECK(cudaMalloc(&target, pieces * kPieceBytes) == cudaSuccess);
  std::vector<Lane> lanes(threads);
  for (Lane& lane : lanes) {
    for (int i = 0; i < 2; ++i) {
      CHECK(cudaHostAlloc(reinterpret_cast<void**>(&lane.memory[i]), kPieceBytes, cudaHostAllocDefault) == cudaSuccess);
      CHECK(cudaEventCreateWithFlags(&lane.done[i], cudaEventBlockingSync | cudaEventDisableTiming) == cudaSuccess);
    }
    CHECK(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking) == cudaSuccess);
  }
  for (int run = -1; run < runs; ++run) {
    std::atomic<size_t> next{0};
    const auto start = std::chrono::steady_clock::now();
    const double before = core_seconds();
    std::vector<std::thread> workers;
    for (Lane& lane : lanes) {
      workers.emplace_back([&] {
        for (int turn = 0;; turn ^= 1) {
          const size_t piece = next.fetch_add(1);
          if (piece >= pieces) break;
          CHECK(cudaEventSynchronize(lane.done[turn]) == cudaSuccess);
          const auto offset = static_cast<off_t>(piece / files.size() * kPieceBytes);
          CHECK(pread(files[piece % files.size()], lane.memory[turn], kPieceBytes, offset) ==
                static_cast<ssize_t>(kPieceBytes));
          if (!to_gpu) continue;
          CHECK(cudaMemcpyAsync(target + piece * kPieceBytes, lane.memory[turn], kPieceBytes, cudaMemcpyHostToDevice,
                                lane.stream) == cudaSuccess);
          CHECK(cudaEventRecord(lane.done[turn], lane.stream) == cudaSuccess);
        }
        CHECK(cudaStreamSynchronize(lane.stream) == cudaSuccess);
      });
    }
    for (std::thread& worker : workers) worker.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double gigabytes = static_cast<double>(pieces * kPieceBytes) / 1e9;
    if (run >= 0) std::printf("%.2f %.3f\n", gigabytes / seconds, (core_seconds() - before) / gigabytes);
  }
  return 0;
}
