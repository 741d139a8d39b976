// How many errors a member may show before it is set aside, and the count of them.
//
// Invariants
//   1. A failed write or flush sets a member aside at once (stale): it has missed something for certain. What is
//      counted here decides only whether it may come back by itself, and when reads alone set it aside.
//   2. Errors are counted per member and session, never forgotten before it ends.
//
// It decides nothing about roots and does no I/O.

/** Failing reads (I/O errors) of one member in one session before it is faulted; ZFS's default is 10 in 10 minutes. */
export const READ_ERRORS_BEFORE_FAULT = 32;
/** Copies of one member whose sum did not match before it is faulted. Healing goes on below it. */
export const CHECKSUM_ERRORS_BEFORE_FAULT = 256;
/** Times that a member may fail a write or flush in one session and still return by itself. */
export const WRITE_FAILURES_BEFORE_FAULT = 3;

export type MemberErrorKind = 'read' | 'checksum' | 'write';

const LIMITS: Readonly<Record<MemberErrorKind, number>> = {
  read: READ_ERRORS_BEFORE_FAULT,
  checksum: CHECKSUM_ERRORS_BEFORE_FAULT,
  write: WRITE_FAILURES_BEFORE_FAULT,
};

export class MemberHealth {
  readonly #counts = new Map<number, Record<MemberErrorKind, number>>();

  /** Counts one error; true when it reached the threshold just now or before. */
  note(member: number, kind: MemberErrorKind): boolean {
    const counts = this.#counts.get(member) ?? { read: 0, checksum: 0, write: 0 };
    counts[kind] += 1;
    this.#counts.set(member, counts);
    return counts[kind] >= LIMITS[kind];
  }

  counts(member: number): Readonly<Record<MemberErrorKind, number>> {
    return this.#counts.get(member) ?? { read: 0, checksum: 0, write: 0 };
  }

  /** Somebody brought the member back on purpose: it starts anew. */
  forgive(member: number): void {
    this.#counts.delete(member);
  }
}
