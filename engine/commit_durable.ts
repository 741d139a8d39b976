// Making a built root durable: commit.md section 2, steps 3 to 7.
//
// Invariants
//   1. Each step begins only after every I/O of the one before has completed, in full and without error.
//   2. A flush that fails is never repeated; a write that fails is never repeated.
//   3. Success on a member means: pages flushed on every holder, then the superblock flushed there and read
//      back equal from at least RING_WRITE_QUORUM of its four copies.
//   4. No superblock is written while a page or flush of any holder has failed: the root can still be built
//      anew without that member, under the same sequence (members.md M4).
//
// MemberFailures says that nothing of the root was written but pages; the caller decides what goes on.

import { StoreError, assert } from '../format/errors.js';
import { PAGE_STORED_BYTES_MAX, SECTOR_BYTES } from '../format/limits.js';
import type { Superblock } from '../format/index.js';
import type { PageWrite } from './btree.js';
import type { OnlineMember } from './catalog_core.js';
import { flushMembers } from './flush.js';
import { MAX_COPIES, NO_MEMBER } from './io/port.js';
import type { Io, WriteBatch, WriteResult } from './io/port.js';
import { MAX_PAGES_PER_BATCH } from './limits.js';
import { throwIfAny } from './members/member_failures.js';
import { writeSuperblock } from './superblock_io.js';
import type { SuperblockOutcome } from './superblock_io.js';

/**
 * Steps 3 to 7. Rejects with MemberFailures before any superblock was written; afterwards resolves to the
 * members that failed (the root may or may not be on them) and lines for the operator, usually neither.
 */
export async function makeDurable(
  io: Io,
  holders: readonly OnlineMember[],
  superblock: Superblock,
  writes: readonly PageWrite[],
): Promise<SuperblockOutcome> {
  await writePages(io, holders, writes);
  throwIfAny(await flushMembers(io, holders, `the pages of root ${superblock.sequence}`));
  return writeSuperblock(io, holders, superblock);
}

async function writePages(
  io: Io,
  online: readonly OnlineMember[],
  writes: readonly PageWrite[],
): Promise<void> {
  const slots = new Map(online.map((member) => [member.index, member.slot]));
  for (let start = 0; start < writes.length; start += MAX_PAGES_PER_BATCH) {
    const part = writes.slice(start, start + MAX_PAGES_PER_BATCH);
    const batch = pageBatch(part, slots);
    const result = await io.write(batch);
    if (result.status.some((status) => status !== 0)) throwPageErrors(part, result, online);
    for (let i = 0; i < part.length; i += 1) {
      const { pointer } = part[i] as PageWrite;
      if (batch.segmentSums[i] === pointer.sum) continue;
      throw new StoreError('E_CORRUPT', 'a catalog page changed in memory between sealing and writing', {
        where: { structure: 'page', ...firstPlace(pointer) },
        safe: 'the last acknowledged root is untouched',
        next: 'check the memory of this machine',
      });
    }
  }
}

function pageBatch(writes: readonly PageWrite[], slots: ReadonlyMap<number, number>): WriteBatch {
  const count = writes.length;
  const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
  const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
  const bytes = new Float64Array(count);
  const index = new Uint32Array(count);
  const source = new Int32Array(count);
  for (let i = 0; i < count; i += 1) {
    const { pointer, bytes: page } = writes[i] as PageWrite;
    assert(page.byteLength === pointer.storedBytes, 'a page has the length that its pointer says');
    pointer.copies.forEach((copy, c) => {
      const slot = slots.get(copy.member);
      assert(slot !== undefined, 'pages go to members that are online');
      copyMember[i * MAX_COPIES + c] = slot;
      copyOffsetBytes[i * MAX_COPIES + c] = copy.sector * SECTOR_BYTES;
    });
    bytes[i] = page.byteLength;
    index[i] = i;
    source[i] = i;
  }
  return {
    priority: 0,
    count,
    copyMember,
    copyOffsetBytes,
    rawBytes: bytes,
    storedBytes: bytes,
    segmentBytes: new Float64Array(count).fill(PAGE_STORED_BYTES_MAX),
    pieceStart: index,
    pieceCount: new Uint32Array(count).fill(1),
    pieceBytes: bytes,
    pieceOffsetBytes: new Float64Array(count),
    pieceSource: source,
    pieceSourceOffsetBytes: new Float64Array(count),
    sources: writes.map((write) => write.bytes),
    files: [],
    sumIndex: index,
    segmentSums: new BigUint64Array(count),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(count),
  };
}

function firstPlace(pointer: PageWrite['pointer']): { memberIndex: number; offsetBytes: number } {
  const copy = pointer.copies[0];
  return { memberIndex: copy?.member ?? -1, offsetBytes: (copy?.sector ?? 0) * SECTOR_BYTES };
}

/** One error for each member that failed; one that cannot be blamed on any is thrown as it is. */
function throwPageErrors(
  part: readonly PageWrite[],
  result: WriteResult,
  online: readonly OnlineMember[],
): never {
  const failures = new Map<number, StoreError>();
  for (const fault of result.faults) {
    const write = part[fault.op];
    const member = online.find((entry) => entry.slot === fault.slot);
    if (write === undefined || member === undefined || failures.has(member.index)) continue;
    failures.set(member.index, pageError(write, fault, online));
  }
  throwIfAny(failures);
  const failed = result.status.findIndex((status) => status !== 0);
  throw pageError(part[failed] as PageWrite, undefined, online);
}

function pageError(
  write: PageWrite,
  fault: { slot: number; offsetBytes: number; errno: number } | undefined,
  online: readonly OnlineMember[],
): StoreError {
  const member = online.find((entry) => entry.slot === fault?.slot);
  const errno = fault?.errno ?? 0;
  return new StoreError('E_IO', `writing a catalog page failed with errno ${errno}`, {
    where: {
      structure: 'page',
      errno,
      lengthBytes: write.pointer.storedBytes,
      ...(member === undefined
        ? firstPlace(write.pointer)
        : { member: member.path, memberIndex: member.index, offsetBytes: fault?.offsetBytes ?? 0 }),
    },
    safe: 'the last acknowledged root is untouched',
    next: 'ingot doctor',
  });
}
