// The text of fault rules: any text is taken or refused with E_USAGE, and what was refused changes nothing.
#include <string>

#include "fault_hook.h"
#include "fuzz_input.h"

namespace {

constexpr size_t kTextBytesMax = 2048;
constexpr int kRequests = 8;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const std::vector<uint8_t> bytes = input.take(kTextBytesMax);
  const std::string text(bytes.begin(), bytes.end());
  ingot::FaultHook hook;
  FUZZ_CHECK(hook.configure("read:1:EIO:sticky").ok());
  const ingot::Status status = hook.configure(text.c_str());
  if (!status.ok()) {
    ingot_error error{};
    FUZZ_CHECK(status.report(&error) == -1 && std::strcmp(error.code, "E_USAGE") == 0);
    FUZZ_CHECK(hook.next(ingot::IoKind::read, 0).effect == ingot::InjectedFault::Effect::fail);
    return 0;
  }
  for (const auto kind : {ingot::IoKind::read, ingot::IoKind::write, ingot::IoKind::flush, ingot::IoKind::source}) {
    for (int i = 0; i < kRequests; ++i) {
      const ingot::InjectedFault fault = hook.next(kind, static_cast<uint32_t>(i % 3));
      const bool fails = fault.effect == ingot::InjectedFault::Effect::fail;
      FUZZ_CHECK(fails == (fault.errno_value != 0));
    }
    FUZZ_CHECK(hook.issued(kind) >= kRequests);
  }
  return 0;
}
