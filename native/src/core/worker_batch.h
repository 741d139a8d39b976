// Batches whose ops run on the workers and touch no member: sealing and opening.
//
// Invariants
//   1. An op is one task, run once by any worker; what it allocates and cannot get fails that op alone (ENOMEM).
//   2. An op that was refused before it began did nothing; its status and a fault say so.
#pragma once

#include <cerrno>
#include <memory>
#include <new>
#include <utility>

#include "batch.h"

namespace ingot {

class WorkerBatch : public Batch {
 public:
  WorkerBatch(Context& context, Call call, uint32_t count, uint8_t* status)
      : Batch(context, std::move(call), INGOT_RESULT_WRITE), tasks_(std::make_unique<OpTask[]>(count)) {
    op_count_ = count;
    status_ = status;
    for (uint32_t i = 0; i < count; ++i) tasks_[i].set(this, i, call_.priority);
  }

 protected:
  /// True when the op is right; false leaves status `failed`.
  virtual bool run_op(uint32_t op) = 0;

  void start_op(uint32_t op) override { context_.workers().post(&tasks_[op]); }

 private:
  struct OpTask : Task {
    void set(WorkerBatch* owner, uint32_t index, uint8_t wanted_priority) {
      batch = owner;
      op = index;
      priority = wanted_priority;
      run = [](Task* task) {
        auto* mine = static_cast<OpTask*>(task);
        mine->batch->work(mine->op);
      };
    }
    WorkerBatch* batch = nullptr;
    uint32_t op = 0;
  };

  void work(uint32_t op) {
    if (const int refusal = call_.cancel->refusal(); refusal != 0) {
      status_[op] = refusal == ECANCELED ? INGOT_OP_ABORTED : INGOT_OP_FAILED;
      add_fault(op, 0, 0, 0, 0, refusal_kind(refusal), refusal);
    } else {
      bool right = false;
      try {
        right = run_op(op);
      } catch (const std::bad_alloc&) {
        add_fault(op, 0, 0, 0, 0, INGOT_FAULT_IO, ENOMEM);
      }
      status_[op] = right ? INGOT_OP_OK : INGOT_OP_FAILED;
    }
    op_finished(op);
  }

  const std::unique_ptr<OpTask[]> tasks_;
};

}  // namespace ingot
