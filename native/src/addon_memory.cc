// See addon_memory.h.
#include "addon_memory.h"

#include <map>
#include <mutex>

namespace ingot_addon {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, std::shared_ptr<Allocation>> by_address;
};

/// Never destroyed: environments may end after static destructors have begun.
Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

std::shared_ptr<Allocation> make_allocation(uint64_t length_bytes) {
  auto made = std::make_shared<Allocation>(length_bytes);
  if (made->data == nullptr) return nullptr;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.by_address[reinterpret_cast<uintptr_t>(made->data)] = made;
  return made;
}

void forget_allocation(void* data) {
  std::shared_ptr<Allocation> last;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.by_address.find(reinterpret_cast<uintptr_t>(data));
  if (found == all.by_address.end()) return;
  last = std::move(found->second);
  all.by_address.erase(found);
}

std::vector<std::shared_ptr<Allocation>> allocations_of(const std::vector<ingot_buffer>& buffers) {
  std::vector<std::shared_ptr<Allocation>> kept;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  for (const ingot_buffer& buffer : buffers) {
    const auto address = reinterpret_cast<uintptr_t>(buffer.data);
    auto after = all.by_address.upper_bound(address);
    if (after == all.by_address.begin()) continue;
    const std::shared_ptr<Allocation>& before = std::prev(after)->second;
    const auto start = reinterpret_cast<uintptr_t>(before->data);
    if (address < start + before->length_bytes && (kept.empty() || kept.back() != before)) kept.push_back(before);
  }
  return kept;
}

}  // namespace ingot_addon
