// One simulated member: what a read sees, what a power cut leaves, and the write cache between them.
//
// Invariants
//   1. `current` is what reads see. `durable` is what a power cut is sure to leave. A write moves from
//      the first to the second only by a flush that began after the write had completed.
//   2. Blocks are 4 KiB arrays that are never changed after they were put in a map: a write replaces
//      blocks. So images share blocks and cost what they differ by. An absent block is zero.
//   3. Every write that no successful flush covers is in `pending`, also those still in flight; a crash
//      decides about each of them apart: kept, dropped, torn at 512 B, or scrambled.
//   4. A write that was in the cache when a flush failed never becomes durable by a later flush
//      ("doomed": the fsync-gate behaviour, Rebello et al., ATC'20).
//
// The damage rules follow SQLite's test6.c and FoundationDB's AsyncFileNonDurable.

import { AssertionError } from '../../format/errors.js';
import type { Prng } from './prng.js';

export const BLOCK_BYTES = 4096;
export const TORN_UNIT_BYTES = 512;
const UNITS_PER_BLOCK = BLOCK_BYTES / TORN_UNIT_BYTES;
const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES);

/** A superblock's slot, and what tells which root it is of. */
const DOUBTED_BYTES_MAX = 8192;
const DOUBTED_HEAD_BYTES = 128;

export type BlockMap = Map<number, Uint8Array>;

export interface PendingWrite {
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly bytes: Uint8Array;
  /** 0 while in flight, then the rank among completed writes of the member. */
  completedOrder: number;
  /** No later flush makes it durable. */
  doomed: boolean;
  /** Sent astray by the device: it may run into others. */
  readonly astray: boolean;
  /** By block: 1 where a younger write is durable already, so that this one can no longer matter. */
  superseded: Uint8Array | null;
}

/** What a crash does to one pending write. `units` of a torn or scrambled one: 0 old, 1 new, 2 garbage. */
export type Damage = 'keep' | 'drop' | { readonly units: Uint8Array };
export type DamageChooser = (write: PendingWrite, path: string) => Damage;

export interface DiskImage {
  readonly sizeBytes: number;
  readonly failureDomain: string;
  readonly blocks: ReadonlyMap<number, Uint8Array>;
}

/** Marks the blocks of `old` that a younger write in `durable` replaced on the medium. */
function supersede(old: PendingWrite, durable: readonly PendingWrite[]): void {
  const oldEnd = old.offsetBytes + old.lengthBytes;
  for (const write of durable) {
    const from = Math.max(old.offsetBytes, write.offsetBytes);
    const to = Math.min(oldEnd, write.offsetBytes + write.lengthBytes);
    if (from >= to || write.completedOrder < old.completedOrder) continue;
    old.superseded ??= new Uint8Array(old.lengthBytes / BLOCK_BYTES);
    old.superseded.fill(1, (from - old.offsetBytes) / BLOCK_BYTES, (to - old.offsetBytes) / BLOCK_BYTES);
  }
}

function isZero(block: Uint8Array): boolean {
  return Buffer.compare(block, ZERO_BLOCK) === 0;
}

function storeBlock(map: BlockMap, index: number, block: Uint8Array): void {
  if (isZero(block)) map.delete(index);
  else map.set(index, block);
}

function applyWhole(
  map: BlockMap,
  offsetBytes: number,
  bytes: Uint8Array,
  skip: Uint8Array | null = null,
): void {
  const first = offsetBytes / BLOCK_BYTES;
  for (let i = 0; i * BLOCK_BYTES < bytes.length; i += 1) {
    if (skip !== null && skip[i] === 1) continue;
    storeBlock(map, first + i, bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
  }
}

function applyUnits(map: BlockMap, write: PendingWrite, units: Uint8Array, prng: Prng): void {
  const first = write.offsetBytes / BLOCK_BYTES;
  for (let i = 0; i * BLOCK_BYTES < write.lengthBytes; i += 1) {
    if (write.superseded !== null && write.superseded[i] === 1) continue;
    const block = (map.get(first + i) ?? ZERO_BLOCK).slice();
    for (let unit = 0; unit < UNITS_PER_BLOCK; unit += 1) {
      const choice = units[i * UNITS_PER_BLOCK + unit] ?? 0;
      if (choice === 0) continue;
      const at = unit * TORN_UNIT_BYTES;
      const from = i * BLOCK_BYTES + at;
      block.set(
        choice === 1 ? write.bytes.subarray(from, from + TORN_UNIT_BYTES) : prng.bytes(TORN_UNIT_BYTES),
        at,
      );
    }
    storeBlock(map, first + i, block);
  }
}

/** A prefix or suffix of whole 512 B units is new, the rest old. */
export function tornDamage(write: PendingWrite, prng: Prng): Damage {
  const count = write.lengthBytes / TORN_UNIT_BYTES;
  const cut = prng.between(1, count - 1);
  const units = new Uint8Array(count);
  if (prng.chance(0.5)) units.fill(1, 0, cut);
  else units.fill(1, cut);
  return { units };
}

/** Each 512 B unit is old, new or garbage. */
export function scrambledDamage(write: PendingWrite, prng: Prng): Damage {
  const units = new Uint8Array(write.lengthBytes / TORN_UNIT_BYTES);
  for (let i = 0; i < units.length; i += 1) units[i] = prng.below(3);
  return { units };
}

export class SimDisk {
  readonly path: string;
  readonly sizeBytes: number;
  readonly failureDomain: string;
  /** False while the member is pulled out: every operation fails. */
  attached = true;
  /** errno that the next flush gives because a write behind it failed late; 0 none. */
  lateErrno = 0;
  /** Created but the creation not yet durable: a crash may leave no file at all. */
  creating = false;
  /** Heads of small writes that a failed flush or a late error left in doubt: a later power cut may take them. */
  readonly doubted: Uint8Array[] = [];
  /** Says that it flushed and does not: outside the fault model, for tests of those who judge. */
  forgetsFlushes = false;
  /** Moves whenever what a crash could leave may have changed. */
  generation = 0;
  /** When set, every read is noted as [offset, bytes]. */
  readLog: [number, number][] | null = null;
  private current: BlockMap;
  private durable: BlockMap;
  private pending: PendingWrite[] = [];
  private nextWriteId = 1;
  private completedCount = 0;

  constructor(path: string, image: DiskImage) {
    if (image.sizeBytes % BLOCK_BYTES !== 0) throw new AssertionError(`${path}: size is not whole blocks`);
    this.path = path;
    this.sizeBytes = image.sizeBytes;
    this.failureDomain = image.failureDomain;
    this.current = new Map(image.blocks);
    this.durable = new Map(image.blocks);
  }

  get pendingWrites(): readonly PendingWrite[] {
    return this.pending;
  }

  /** Bytes of blocks held: what the member costs the host. */
  get heldBytes(): number {
    return this.current.size * BLOCK_BYTES;
  }

  read(offsetBytes: number, target: Uint8Array): void {
    this.readLog?.push([offsetBytes, target.length]);
    let done = 0;
    while (done < target.length) {
      const at = offsetBytes + done;
      const index = Math.floor(at / BLOCK_BYTES);
      const within = at - index * BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, target.length - done);
      const block = this.current.get(index);
      if (block === undefined) target.fill(0, done, done + count);
      else target.set(count === BLOCK_BYTES ? block : block.subarray(within, within + count), done);
      done += count;
    }
  }

  /** A write leaves for the device. `bytes` is owned by the disk from here on. `astray`: misdirected. */
  beginWrite(offsetBytes: number, bytes: Uint8Array, astray = false): PendingWrite {
    if (offsetBytes % BLOCK_BYTES !== 0 || bytes.length % BLOCK_BYTES !== 0 || bytes.length === 0) {
      throw new AssertionError(
        `${this.path}: write of ${bytes.length} bytes at ${offsetBytes} is not aligned`,
      );
    }
    for (const other of this.pending) {
      if (other.completedOrder !== 0 || astray || other.astray) continue;
      if (
        offsetBytes < other.offsetBytes + other.lengthBytes &&
        other.offsetBytes < offsetBytes + bytes.length
      ) {
        throw new AssertionError(`${this.path}: two writes in flight overlap at ${offsetBytes}`);
      }
    }
    const write: PendingWrite = {
      id: this.nextWriteId++,
      offsetBytes,
      lengthBytes: bytes.length,
      bytes,
      completedOrder: 0,
      doomed: false,
      astray,
      superseded: null,
    };
    this.generation += 1;
    this.pending.push(write);
    return write;
  }

  endWrite(write: PendingWrite, doomed = false): void {
    this.generation += 1;
    this.completedCount += 1;
    write.completedOrder = this.completedCount;
    if (doomed) this.doom(write);
    applyWhole(this.current, write.offsetBytes, write.bytes);
  }

  /** The write ended early: its first `appliedBytes` (whole 4 KiB) are there, nothing more. */
  failWrite(write: PendingWrite, appliedBytes: number, doomed = true): void {
    this.generation += 1;
    this.pending = this.pending.filter((other) => other !== write);
    if (appliedBytes === 0) return;
    const partial: PendingWrite = {
      id: write.id,
      offsetBytes: write.offsetBytes,
      lengthBytes: appliedBytes,
      bytes: write.bytes.subarray(0, appliedBytes),
      completedOrder: 0,
      doomed,
      astray: write.astray,
      superseded: null,
    };
    this.pending.push(partial);
    this.endWrite(partial, doomed);
  }

  /** The device said yes and did nothing. */
  loseWrite(write: PendingWrite): void {
    this.pending = this.pending.filter((other) => other !== write);
  }

  /** Writes that a flush starting now will cover. */
  beginFlush(): readonly PendingWrite[] {
    return this.pending.filter((write) => write.completedOrder !== 0 && !write.doomed);
  }

  endFlush(covered: readonly PendingWrite[]): void {
    if (this.forgetsFlushes) return;
    this.generation += 1;
    const ordered = [...covered].sort((left, right) => left.completedOrder - right.completedOrder);
    for (const write of ordered) applyWhole(this.durable, write.offsetBytes, write.bytes);
    const gone = new Set(covered);
    this.pending = this.pending.filter((write) => !gone.has(write));
    for (const left of this.pending) if (left.doomed) supersede(left, ordered);
  }

  failFlush(covered: readonly PendingWrite[]): void {
    for (const write of covered) this.doom(write);
  }

  private doom(write: PendingWrite): void {
    write.doomed = true;
    if (write.lengthBytes <= DOUBTED_BYTES_MAX) this.doubted.push(write.bytes.slice(0, DOUBTED_HEAD_BYTES));
  }

  /** Changes bytes of the medium behind everybody's back (bit rot, tampering). */
  corrupt(offsetBytes: number, change: (bytes: Uint8Array) => void, lengthBytes: number): void {
    for (const map of [this.current, this.durable]) {
      const first = Math.floor(offsetBytes / BLOCK_BYTES);
      const last = Math.floor((offsetBytes + lengthBytes - 1) / BLOCK_BYTES);
      const joined = new Uint8Array((last - first + 1) * BLOCK_BYTES);
      for (let i = first; i <= last; i += 1) joined.set(map.get(i) ?? ZERO_BLOCK, (i - first) * BLOCK_BYTES);
      const within = offsetBytes - first * BLOCK_BYTES;
      change(joined.subarray(within, within + lengthBytes));
      applyWhole(map, first * BLOCK_BYTES, joined);
    }
  }

  /** What reads see now, as an image (a process that dies without a power cut leaves this). */
  currentImage(): DiskImage {
    return { sizeBytes: this.sizeBytes, failureDomain: this.failureDomain, blocks: new Map(this.current) };
  }

  /** What a power cut leaves when `choose` has its say about each unflushed write. */
  crashImage(choose: DamageChooser, prng: Prng): DiskImage {
    const blocks: BlockMap = new Map(this.durable);
    const rank = (write: PendingWrite): number =>
      write.completedOrder === 0 ? Infinity : write.completedOrder;
    const ordered = [...this.pending].sort((left, right) => rank(left) - rank(right) || left.id - right.id);
    for (const write of ordered) {
      const damage = choose(write, this.path);
      if (damage === 'drop') continue;
      if (damage === 'keep') applyWhole(blocks, write.offsetBytes, write.bytes, write.superseded);
      else applyUnits(blocks, write, damage.units, prng);
    }
    return { sizeBytes: this.sizeBytes, failureDomain: this.failureDomain, blocks };
  }
}

const blockHashes = new WeakMap<Uint8Array, number>();

function blockHash(block: Uint8Array): number {
  const known = blockHashes.get(block);
  if (known !== undefined) return known;
  let low = 0x811c9dc5;
  let high = 0x1b873593;
  for (let i = 0; i < block.length; i += 4) {
    const word = block[i]! | (block[i + 1]! << 8) | (block[i + 2]! << 16) | (block[i + 3]! << 24);
    low = Math.imul(low ^ word, 0x01000193);
    high = (Math.imul(high ^ low, 0x85ebca6b) << 5) ^ (high >>> 7);
  }
  const hash = (high & 0x1fffff) * 0x1_0000_0000 + (low >>> 0);
  blockHashes.set(block, hash);
  return hash;
}

/** Order-free 53-bit hash of an image's content: equal images hash equal. */
export function imageHash(image: DiskImage): number {
  let low = (image.sizeBytes % 0x1_0000_0000) | 0;
  let high = image.blocks.size | 0;
  for (const [index, block] of image.blocks) {
    const hash = blockHash(block);
    let mixed = Math.imul((hash | 0) ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca6b);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed ^ Math.floor(hash / 0x1_0000_0000), 0xc2b2ae35);
    mixed ^= mixed >>> 13;
    low = (low + mixed) | 0;
    high = (high + Math.imul(mixed, 0x27d4eb2f) + (mixed >>> 3)) | 0;
  }
  return (high & 0x1fffff) * 0x1_0000_0000 + (low >>> 0);
}
