// Which members failed a step that went to several of them.
//
// Invariants
//   1. Inside the engine only: what users see is a StoreError made of it.
//   2. There is at least one failure, and each names its member.
//
// It decides nothing: the committer goes on without the members or poisons the handle.

import { StoreError, assert } from '../../format/errors.js';

/** By member index. */
export type FailuresByMember = ReadonlyMap<number, StoreError>;

export class MemberFailures extends Error {
  override readonly name = 'MemberFailures';
  readonly failures: FailuresByMember;

  constructor(failures: FailuresByMember) {
    assert(failures.size > 0, 'somebody failed');
    super([...failures.values()].map((error) => error.message).join('; '));
    this.failures = failures;
  }

  /** The first failure, for messages. */
  get first(): StoreError {
    return firstFailure(this.failures);
  }
}

export function firstFailure(failures: FailuresByMember): StoreError {
  const [first] = failures.values();
  assert(first !== undefined, 'somebody failed');
  return first;
}

export function throwIfAny(failures: FailuresByMember): void {
  if (failures.size > 0) throw new MemberFailures(failures);
}
