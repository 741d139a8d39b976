// Runs a fuzz target over the files of its corpus, and over each of them cut short and with single bits turned, without
// libFuzzer: so that every compiler, and `npm test`, replays what fuzzing once found.
//
// Usage: NAME_replay FOLDER...   Prints the number of inputs; a finding aborts. A folder without files is an error.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz_input.h"

namespace {

/// Mutations of one file at most: a corpus file is small, and this runs in a gate.
constexpr size_t kCutsMax = 64;
constexpr size_t kFlipsMax = 256;

size_t replay(const std::vector<uint8_t>& bytes) {
  size_t count = 1;
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  const size_t cut_step = std::max<size_t>(1, bytes.size() / kCutsMax);
  for (size_t length = 0; length < bytes.size(); length += cut_step, ++count) {
    const std::vector<uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<long>(length));
    LLVMFuzzerTestOneInput(cut.data(), cut.size());
  }
  const size_t flip_step = std::max<size_t>(1, bytes.size() * 8 / kFlipsMax);
  for (size_t bit = 0; bit < bytes.size() * 8; bit += flip_step, ++count) {
    std::vector<uint8_t> flipped = bytes;
    flipped[bit / 8] = static_cast<uint8_t>(flipped[bit / 8] ^ (1U << (bit % 8)));
    LLVMFuzzerTestOneInput(flipped.data(), flipped.size());
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  size_t files = 0;
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      if (entry.is_regular_file()) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) {
      std::ifstream file(path, std::ios::binary);
      const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      inputs += replay(bytes);
      ++files;
    }
  }
  std::printf("%zu inputs from %zu files\n", inputs, files);
  return files > 0 ? 0 : 1;
}
