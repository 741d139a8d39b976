// See range_lock.h.
#include "range_lock.h"

#include <fcntl.h>

#include <cerrno>

namespace ingot {
namespace {

constexpr uint64_t kWriterByte = 1ULL << 61;
constexpr uint64_t kPinBase = kWriterByte + 4096;
constexpr uint64_t kSequenceMax = 1ULL << 60;

int apply(int fd, int command, struct flock& lock) {
  int result = 0;
  do {
    result = fcntl(fd, command, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

struct flock range_of(short type, uint64_t start, uint64_t length) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  return lock;
}

}  // namespace

Status RangeLocks::try_lock_writer(bool& locked) {
  locked = false;
  if (file_.writer_lock.get() < 0) return {"E_READ_ONLY", EROFS, "'" + file_.path + "' is open read-only"};
  struct flock lock = range_of(F_WRLCK, kWriterByte, 1);
  const int error = apply(file_.writer_lock.get(), F_OFD_SETLK, lock);
  if (error == EAGAIN || error == EACCES) return {};
  if (error != 0) return system_failure("E_IO", "writer lock of '" + file_.path + "'", error);
  locked = true;
  return {};
}

Status RangeLocks::unlock_writer() {
  if (file_.writer_lock.get() < 0) return {};
  struct flock lock = range_of(F_UNLCK, kWriterByte, 1);
  const int error = apply(file_.writer_lock.get(), F_OFD_SETLK, lock);
  return error == 0 ? Status() : system_failure("E_IO", "writer unlock of '" + file_.path + "'", error);
}

Status RangeLocks::pin(uint64_t sequence) {
  if (sequence >= kSequenceMax) return contract_failure("pin of sequence beyond 2^60");
  const std::lock_guard guard(mutex_);
  if (pins_[sequence] == 0) {
    struct flock lock = range_of(F_RDLCK, kPinBase + sequence, 1);
    const int error = apply(file_.pin_lock.get(), F_OFD_SETLK, lock);
    if (error != 0) {
      pins_.erase(sequence);
      return system_failure("E_IO", "pin of sequence " + std::to_string(sequence) + " on '" + file_.path + "'", error);
    }
  }
  ++pins_[sequence];
  return {};
}

Status RangeLocks::unpin(uint64_t sequence) {
  const std::lock_guard guard(mutex_);
  const auto found = pins_.find(sequence);
  if (found == pins_.end()) return contract_failure("unpin of a sequence that is not pinned");
  if (--found->second > 0) return {};
  pins_.erase(found);
  struct flock lock = range_of(F_UNLCK, kPinBase + sequence, 1);
  const int error = apply(file_.pin_lock.get(), F_OFD_SETLK, lock);
  return error == 0 ? Status() : system_failure("E_IO", "unpin on '" + file_.path + "'", error);
}

Status RangeLocks::pinned_below(uint64_t sequence, bool& pinned) {
  pinned = false;
  // Length 0 would mean "to the end of the file".
  if (sequence == 0) return {};
  if (sequence >= kSequenceMax) return contract_failure("pin query beyond 2^60");
  struct flock lock = range_of(F_WRLCK, kPinBase, sequence);
  const int error = apply(file_.pin_lock.get(), F_OFD_GETLK, lock);
  if (error != 0) return system_failure("E_IO", "pin query on '" + file_.path + "'", error);
  pinned = lock.l_type != F_UNLCK;
  return {};
}

}  // namespace ingot
