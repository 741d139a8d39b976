// See device_queue.h.
#include "device_queue.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "core_limits.h"

namespace ingot {

void Transfer::aim(uint64_t limit_bytes) {
  remaining.clear();
  uint64_t skip = done_bytes;
  for (const iovec& part : memory) {
    if (skip >= part.iov_len) {
      skip -= part.iov_len;
      continue;
    }
    uint64_t length = part.iov_len - skip;
    if (length > limit_bytes) length = limit_bytes;
    if (length == 0) break;
    remaining.push_back({static_cast<std::byte*>(part.iov_base) + skip, length});
    limit_bytes -= length;
    skip = 0;
  }
}

bool DeviceQueue::refuse(IoRequest* request) {
  const int refusal = request->cancel != nullptr ? request->cancel->refusal() : 0;
  if (refusal == 0) return false;
  request->refused = true;
  request->errno_value = refusal;
  request->done_bytes = 0;
  workers_.post(request);
  return true;
}

void DeviceQueue::submit(IoRequest* chain) {
  bool added = false;
  {
    const std::lock_guard lock(mutex_);
    while (chain != nullptr) {
      IoRequest* request = chain;
      chain = request->next_request;
      request->next_request = nullptr;
      request->refused = false;
      request->errno_value = 0;
      request->done_bytes = 0;
      if (refuse(request)) continue;
      request->fault = faults_.next(request->kind, request->slot);
      pending_[request->priority < 2 ? request->priority : 2].push_back(request);
      added = true;
    }
  }
  if (added) wake();
}

void DeviceQueue::sweep() {
  const std::lock_guard lock(mutex_);
  for (auto& lane : pending_) {
    std::deque<IoRequest*> kept;
    for (IoRequest* request : lane) {
      if (!refuse(request)) kept.push_back(request);
    }
    lane.swap(kept);
  }
}

bool DeviceQueue::empty_locked() const {
  for (const auto& lane : pending_) {
    if (!lane.empty()) return false;
  }
  return true;
}

bool DeviceQueue::fits(const Transfer& transfer, const IoRequest& request, uint64_t limit_bytes) {
  return !request.alone && request.kind == transfer.kind && request.fd == transfer.fd &&
         request.fault.effect == InjectedFault::Effect::none &&
         request.offset_bytes == transfer.offset_bytes + transfer.length_bytes &&
         transfer.length_bytes + request.length_bytes <= limit_bytes;
}

bool DeviceQueue::take_locked(Transfer& transfer) {
  for (auto& lane : pending_) {
    while (!lane.empty()) {
      IoRequest* first = lane.front();
      lane.pop_front();
      if (refuse(first)) continue;
      transfer.requests = first;
      transfer.kind = first->kind;
      transfer.fd = first->fd;
      transfer.offset_bytes = first->offset_bytes;
      transfer.length_bytes = first->length_bytes;
      transfer.done_bytes = 0;
      transfer.retries = 0;
      transfer.fault = first->fault;
      transfer.memory.assign(1, {first->memory, first->length_bytes});
      first->next_request = nullptr;
      transfers_.fetch_add(1, std::memory_order_relaxed);
      const bool mergeable = !first->alone && first->fault.effect == InjectedFault::Effect::none &&
                             (first->kind == IoKind::read || first->kind == IoKind::write);
      if (!mergeable) return true;
      IoRequest* last = first;
      for (size_t count = 1; count < kMergedRequestsMax && !lane.empty(); ++count) {
        IoRequest* next = lane.front();
        if (!fits(transfer, *next, limits_.coalesce_bytes)) break;
        lane.pop_front();
        if (refuse(next)) break;
        iovec& tail = transfer.memory.back();
        if (static_cast<std::byte*>(tail.iov_base) + tail.iov_len == next->memory) {
          tail.iov_len += next->length_bytes;
        } else {
          transfer.memory.push_back({next->memory, next->length_bytes});
        }
        transfer.length_bytes += next->length_bytes;
        next->next_request = nullptr;
        last->next_request = next;
        last = next;
      }
      return true;
    }
  }
  return false;
}

bool DeviceQueue::injected_result(Transfer& transfer, int64_t& result) {
  using Effect = InjectedFault::Effect;
  const InjectedFault fault = transfer.fault;
  if (!fault.sticky) transfer.fault = {};
  // A single request may be longer than a transfer (a page with one sum): it goes in turns.
  uint64_t left = transfer.length_bytes - transfer.done_bytes;
  if (left > kCoalesceBytesMax) left = kCoalesceBytesMax;
  transfer.aim(left);
  switch (fault.effect) {
    case Effect::none: return false;
    case Effect::hang: return false;
    case Effect::fail: result = -fault.errno_value; return true;
    case Effect::zero: result = 0; return transfer.kind != IoKind::flush;
    case Effect::shorten: break;
  }
  const uint64_t alignment = transfer.requests->alignment_bytes;
  const uint64_t half = left / 2 / alignment * alignment;
  if (half == 0) {
    result = 0;
    return transfer.kind != IoKind::flush;
  }
  transfer.aim(half);
  return false;
}

DeviceQueue::Next DeviceQueue::settle(Transfer& transfer, int64_t result) {
  if (transfer.kind == IoKind::flush) {
    finish(transfer, result < 0 ? static_cast<int>(-result) : 0);
    return Next::finished;
  }
  if (result == -EAGAIN || result == -EINTR) {
    if (++transfer.retries <= kTransientRetriesMax) return Next::again;
    finish(transfer, static_cast<int>(-result));
    return Next::finished;
  }
  if (result <= 0) {
    finish(transfer, static_cast<int>(-result));
    return Next::finished;
  }
  const auto moved = static_cast<uint64_t>(result);
  if (transfer.done_bytes + moved >= transfer.length_bytes) {
    transfer.done_bytes = transfer.length_bytes;
    finish(transfer, 0);
    return Next::finished;
  }
  // Direct I/O continues only on an aligned offset: the unaligned end is asked for once more, and
  // when that gives no more, the file ends there.
  const uint64_t alignment = transfer.requests->alignment_bytes;
  const uint64_t usable = moved / alignment * alignment;
  if (usable == 0) {
    transfer.done_bytes += moved;
    finish(transfer, 0);
    return Next::finished;
  }
  transfer.done_bytes += usable;
  return Next::again;
}

void DeviceQueue::finish(Transfer& transfer, int errno_value) {
  IoRequest* request = transfer.requests;
  transfer.requests = nullptr;
  const bool whole = errno_value == 0 && transfer.done_bytes == transfer.length_bytes;
  if (!whole && transfer.kind == IoKind::read && request->next_request != nullptr) {
    for (IoRequest* each = request; each != nullptr; each = each->next_request) each->alone = true;
    {
      const std::lock_guard lock(mutex_);
      while (request != nullptr) {
        IoRequest* next = request->next_request;
        request->next_request = nullptr;
        if (!refuse(request)) pending_[request->priority < 2 ? request->priority : 2].push_back(request);
        request = next;
      }
    }
    wake();
    return;
  }
  uint64_t done = transfer.done_bytes;
  while (request != nullptr) {
    IoRequest* next = request->next_request;
    request->next_request = nullptr;
    request->errno_value = errno_value;
    request->done_bytes = done < request->length_bytes ? done : request->length_bytes;
    done -= request->done_bytes;
    hand_back(request);
    request = next;
  }
}

void DeviceQueue::perform(Transfer& transfer) {
  if (transfer.fault.effect == InjectedFault::Effect::hang) {
    std::this_thread::sleep_for(std::chrono::milliseconds(transfer.fault.hang_ms));
    transfer.fault.effect = InjectedFault::Effect::none;
  }
  for (;;) {
    int64_t result = 0;
    if (!injected_result(transfer, result)) result = transfer_once(transfer);
    if (settle(transfer, result) == Next::finished) return;
  }
}

int64_t DeviceQueue::transfer_once(const Transfer& transfer) {
  const auto offset = static_cast<off_t>(transfer.offset_bytes + transfer.done_bytes);
  const auto count = static_cast<int>(transfer.remaining.size());
  ssize_t moved = 0;
  if (transfer.kind == IoKind::flush) moved = fdatasync(transfer.fd);
  else if (transfer.kind == IoKind::write) moved = pwritev(transfer.fd, transfer.remaining.data(), count, offset);
  else moved = preadv(transfer.fd, transfer.remaining.data(), count, offset);
  return moved < 0 ? -errno : moved;
}

}  // namespace ingot
