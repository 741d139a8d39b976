// How many errors a member may show before it is set aside, and the count of them.
//
// Invariants
//   1. A failed write or flush sets a member aside at once (stale): it has missed something for certain. What is
//      counted here decides only whether it may come back by itself, and when reads alone set it aside.
//   2. A threshold is of errors within ERROR_WINDOW_MS: a session may last for months, and a drive that gives one bad
//      sector a week is healed, not faulted.
//   3. What is counted is also owed to the member's record (error_record.ts), until a durable root has it.
//
// It decides nothing about roots and does no I/O.

/** Errors of one kind so long after the first of them begin a new count. ZFS counts over 10 minutes, too. */
export const ERROR_WINDOW_MS = 600_000;
/** Failing reads (I/O errors) of one member within the window before it is faulted; ZFS's default is 10. */
export const READ_ERRORS_BEFORE_FAULT = 32;
/** Copies of one member whose sum did not match, within the window, before it is faulted. Healing goes on below it. */
export const CHECKSUM_ERRORS_BEFORE_FAULT = 256;
/** Times that a member may fail a write or flush within the window and still return by itself. */
export const WRITE_FAILURES_BEFORE_FAULT = 3;

export type MemberErrorKind = 'read' | 'checksum' | 'write';

const LIMITS: Readonly<Record<MemberErrorKind, number>> = {
  read: READ_ERRORS_BEFORE_FAULT,
  checksum: CHECKSUM_ERRORS_BEFORE_FAULT,
  write: WRITE_FAILURES_BEFORE_FAULT,
};

export type MemberErrorCounts = Readonly<Record<MemberErrorKind, number>> & { readonly lastAtMs: number };
const NONE: MemberErrorCounts = { read: 0, write: 0, checksum: 0, lastAtMs: 0 };

interface Clock {
  monotonicMs(): number;
  nowMs(): number;
}

export class MemberHealth {
  readonly #clock: Clock;
  /** By member and kind: errors of the window that began then. */
  readonly #windows = new Map<string, { startMs: number; count: number }>();
  readonly #unsaved = new Map<number, MemberErrorCounts>();
  /** What the root that is being made carries. */
  #carried = new Map<number, MemberErrorCounts>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts one error; true when the window's threshold is reached, just now or before. */
  note(member: number, kind: MemberErrorKind): boolean {
    this.count(member, kind, 1);
    const key = `${member}:${kind}`;
    const nowMs = this.#clock.monotonicMs();
    const window = this.#windows.get(key);
    if (window === undefined || nowMs - window.startMs >= ERROR_WINDOW_MS) {
      this.#windows.set(key, { startMs: nowMs, count: 1 });
      return LIMITS[kind] <= 1;
    }
    window.count += 1;
    return window.count >= LIMITS[kind];
  }

  /** For the record alone. */
  count(member: number, kind: MemberErrorKind, count: number): void {
    const before = this.#unsaved.get(member) ?? NONE;
    const lastAtMs = Math.max(Math.floor(this.#clock.nowMs()), 1);
    this.#unsaved.set(member, { ...before, [kind]: before[kind] + count, lastAtMs });
  }

  /** Errors of the window that the last one fell into. */
  windowCount(member: number, kind: MemberErrorKind): number {
    return this.#windows.get(`${member}:${kind}`)?.count ?? 0;
  }

  /** What no durable root has. */
  unsaved(): [number, MemberErrorCounts][] {
    return [...this.#unsaved];
  }

  /** A root is being made: what an earlier one carried that came to nothing is unsaved still. */
  carryNothing(): void {
    this.#carried.clear();
  }

  /** The root that is being made has all that is unsaved now. */
  carry(): void {
    this.#carried = new Map(this.#unsaved);
  }

  /** That root is durable. */
  saved(): void {
    for (const [member, { read, write, checksum }] of this.#carried) {
      const now = this.#unsaved.get(member);
      if (now === undefined) continue;
      const left = {
        ...now,
        read: now.read - read,
        write: now.write - write,
        checksum: now.checksum - checksum,
      };
      if (left.read + left.write + left.checksum === 0) this.#unsaved.delete(member);
      else this.#unsaved.set(member, left);
    }
    this.#carried.clear();
  }

  /** Somebody brought the member back on purpose: it starts anew. */
  forgive(member: number): void {
    this.#unsaved.delete(member);
    this.#carried.delete(member);
    for (const kind of Object.keys(LIMITS)) this.#windows.delete(`${member}:${kind}`);
  }
}
