// One writer at a time: locks on every member, and the heartbeat for what locks cannot see.
//
// Byte-range locks decide between processes of one machine. A drive that two machines see, or two device
// nodes of one drive, is caught by the heartbeat block that a writer keeps moving (commit.md C16, C19).
//
// Invariants
//   1. A writer holds the lock of every member before it reads a superblock and until it closes.
//   2. A lock that is not to be had is E_LOCKED at once, naming the holder as far as its heartbeat tells.
//   3. The heartbeat is written only after the root was chosen, and decides nothing while locks do.
//   4. `force` lifts the heartbeat's verdict, never the lock's.
//   5. A session counts as open until its keeper was closed or abandoned; an open that fails abandons it.
//
// It never waits for a living holder.

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { HEARTBEAT_AREA_BYTES, HEARTBEAT_OFFSET, decodeHeartbeat, encodeHeartbeat } from '../format/index.js';
import type { Heartbeat, Superblock } from '../format/index.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io, MemberDevice } from './io/port.js';
import { firstFailure } from './members/member_failures.js';
import type { FailuresByMember } from './members/member_failures.js';
import { HEARTBEAT_WAIT_MS, LOCK_TRIES, LOCK_TRIES_UNKNOWN, LOCK_TRY_MS } from './limits.js';

/** Takes the writer lock of every device and checks their heartbeats. Errors: E_LOCKED. */
export async function lockWriters(io: Io, devices: readonly MemberDevice[], force: boolean): Promise<void> {
  const foreign: { device: MemberDevice; heartbeat: Heartbeat }[] = [];
  for (const device of devices) {
    let locked = io.tryLockWriter(device.slot);
    let heartbeat = await readHeartbeat(io, device);
    // The lock of a killed writer goes when the kernel has ended its last write (fault_model.md O1).
    for (let tries = 0; !locked && tries < triesFor(io, heartbeat); tries += 1) {
      await io.clock.sleep(LOCK_TRY_MS);
      locked = io.tryLockWriter(device.slot);
      heartbeat = await readHeartbeat(io, device);
    }
    if (!locked) throw lockedError(device, heartbeat, 'holds its writer lock');
    if (heartbeat === null || heartbeat.closedCleanly || force) continue;
    const verdict = judge(io, heartbeat);
    if (verdict === 'alive')
      throw lockedError(device, heartbeat, 'is alive and writes through another device node');
    if (verdict === 'unknown') foreign.push({ device, heartbeat });
  }
  if (foreign.length === 0) return;
  await io.clock.sleep(HEARTBEAT_WAIT_MS);
  for (const { device, heartbeat } of foreign) {
    const now = await readHeartbeat(io, device);
    const moved = now !== null && (now.counter !== heartbeat.counter || now.hostId !== heartbeat.hostId);
    if (moved) throw lockedError(device, now, 'on another host moved its heartbeat');
  }
}

/** The heartbeat block, or null when there is none that is sound. */
export async function readHeartbeat(io: Io, device: { readonly slot: number }): Promise<Heartbeat | null> {
  try {
    return decodeHeartbeat(await io.readRaw(device.slot, HEARTBEAT_OFFSET, HEARTBEAT_AREA_BYTES));
  } catch (error) {
    if (error instanceof StoreError) return null;
    throw error;
  }
}

/**
 * Whether the writer of an unclosed heartbeat still lives: of this boot we know, of other hosts we do not.
 */
function judge(io: Io, heartbeat: Heartbeat): 'alive' | 'dead' | 'unknown' {
  const me = io.identity();
  if (heartbeat.hostId !== me.hostId) return 'unknown';
  if (heartbeat.bootId !== me.bootId) return 'dead';
  if (heartbeat.processId === me.processId && heartbeat.processStart === me.processStart)
    return io.openSessions?.has(heartbeat.session) ? 'alive' : 'dead';
  return io.processAlive(heartbeat.processId, heartbeat.processStart) ? 'alive' : 'dead';
}

/**
 * How often a lock is asked for again: not at all when its holder lives; a few times when the heartbeat does
 * not say who holds it (somebody opens the store, or was killed while opening it).
 */
function triesFor(io: Io, heartbeat: Heartbeat | null): number {
  if (heartbeat === null || heartbeat.closedCleanly) return LOCK_TRIES_UNKNOWN;
  const { hostId, bootId } = io.identity();
  if (heartbeat.hostId !== hostId || heartbeat.bootId !== bootId) return LOCK_TRIES_UNKNOWN;
  return io.processAlive(heartbeat.processId, heartbeat.processStart) ? 0 : LOCK_TRIES;
}

function lockedError(device: MemberDevice, heartbeat: Heartbeat | null, what: string): StoreError {
  const holder =
    heartbeat === null ? 'another process' : `process ${heartbeat.processId} on host ${heartbeat.hostId}`;
  return new StoreError('E_LOCKED', `${device.path} is open for writing: ${holder} ${what}`, {
    where: { member: device.path },
    retryable: true,
    safe: 'nothing was read or written',
    next: "open it with mode 'r', or end the other writer",
  });
}

/** Keeps the heartbeat of an open writer moving on every member. */
export class HeartbeatKeeper {
  readonly #io: Io;
  readonly #members: OnlineMember[];
  #superblock: Superblock;
  readonly #session: bigint;
  readonly #stop = new AbortController();
  #counter = 0;
  #loop: Promise<void> | null = null;

  constructor(io: Io, members: readonly OnlineMember[], superblock: Superblock) {
    this.#io = io;
    this.#members = [...members];
    this.#superblock = superblock;
    this.#session = new DataView(io.random.bytes(8).slice().buffer).getBigUint64(0, true);
  }

  /** One closed beat: it also says which store and member a new device belongs to (create.ts). */
  async markClosed(): Promise<void> {
    const failures = await this.#beat(true);
    if (failures.size > 0) throw firstFailure(failures);
  }

  /**
   * Writes the first beat; with an interval above 0 goes on by itself. Resolves to the members that could not
   * be written.
   */
  async start(intervalMs: number): Promise<FailuresByMember> {
    this.#io.openSessions?.add(this.#session);
    const failures = await this.#beat(false);
    if (intervalMs > 0) this.#loop = this.#run(intervalMs);
    return failures;
  }

  /** Beats on a member that joined or came back, from now on. */
  async add(member: OnlineMember, superblock: Superblock): Promise<void> {
    this.#superblock = superblock;
    if (!this.#members.some((known) => known.index === member.index)) this.#members.push(member);
    await this.#beat(false);
  }

  /** Writes the closing beat, so that the next open need not wonder. */
  async close(): Promise<void> {
    try {
      this.#stop.abort();
      await this.#loop;
      await this.#beat(true);
    } finally {
      this.#io.openSessions?.delete(this.#session);
    }
  }

  /** Stops without a closing beat; nothing is written any more when it resolves. */
  async abandon(): Promise<void> {
    try {
      this.#stop.abort();
      await this.#loop;
    } finally {
      this.#io.openSessions?.delete(this.#session);
    }
  }

  async #run(intervalMs: number): Promise<void> {
    for (;;) {
      try {
        await this.#io.clock.sleep(intervalMs, this.#stop.signal, true);
      } catch {
        return;
      }
      // Advisory: a beat that cannot be written shows in the member's error counters, and commits will tell.
      await this.#beat(false);
    }
  }

  async #beat(closed: boolean): Promise<FailuresByMember> {
    this.#counter += 1;
    const failures = new Map<number, StoreError>();
    await Promise.all(
      this.#members.map(async ({ slot, index }) => {
        const memberUuid = this.#superblock.members[index]?.uuid;
        assert(memberUuid !== undefined, 'a member that is here is in the table');
        const bytes = encodeHeartbeat({
          ...this.#io.identity(),
          storeUuid: this.#superblock.storeUuid,
          memberUuid,
          session: this.#session,
          counter: this.#counter,
          updatedAtMs: Math.max(this.#io.clock.nowMs(), 0),
          closedCleanly: closed,
        });
        try {
          await this.#io.writeRaw(slot, HEARTBEAT_OFFSET, bytes);
        } catch (error) {
          if (!isStoreError(error)) throw error;
          failures.set(index, error as StoreError);
        }
      }),
    );
    return failures;
  }
}
