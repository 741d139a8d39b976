// How the core says that the world failed: a StoreError code, an errno and a sentence.
//
// Invariants
//   1. `code` is one of the StoreError codes, or ASSERT for a broken contract of the caller.
//   2. Nothing in the core throws for an error of the world; functions return Status.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "ingot_core.h"

namespace ingot {

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(const char* code, int errno_value, std::string message)
      : code_(code), errno_(errno_value), message_(std::move(message)) {}

  [[nodiscard]] bool ok() const { return code_ == nullptr; }
  [[nodiscard]] int errno_value() const { return errno_; }
  [[nodiscard]] const std::string& message() const { return message_; }

  /// Fills the C struct and returns -1; returns 0 when all is well.
  int report(ingot_error* error) const {
    if (ok()) return 0;
    if (error != nullptr) {
      std::snprintf(error->code, sizeof error->code, "%s", code_);
      std::snprintf(error->message, sizeof error->message, "%s", message_.c_str());
      error->errno_value = errno_;
    }
    return -1;
  }

 private:
  const char* code_ = nullptr;
  int errno_ = 0;
  std::string message_;
};

/// "what 'path': reason (errno N)", with the code that fits the errno.
inline Status system_failure(const char* code, const std::string& what, int errno_value) {
  return {code, errno_value, what + ": " + std::strerror(errno_value) + " (errno " + std::to_string(errno_value) + ")"};
}

inline Status contract_failure(std::string message) { return {"ASSERT", 0, std::move(message)}; }

}  // namespace ingot
