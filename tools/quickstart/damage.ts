// Harm done on purpose: part of one copy of a tensor is overwritten directly on a member.
//
// Invariants
//   1. The place is inside the first copy of a tensor, the one that reads prefer, so that a load must meet it.
//   2. The store is closed while its member is written to, and the write is synced before this returns.

import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { ReadFault, Version } from '../../engine/index.js';

/** Bytes that are overwritten at most. */
const DAMAGE_BYTES = 256 * 1024;

export interface Place {
  readonly member: string;
  readonly tensor: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A stretch inside the first copy of a tensor, the one that reads prefer. */
export async function choosePlace(version: Version): Promise<Place> {
  for (const { name } of version.tensors) {
    const pieces = await version.tensor(name).extents();
    const piece = pieces.find(({ copy }) => copy === 0);
    if (piece === undefined) continue;
    const { member, offset, length } = piece;
    return { member, tensor: name, offsetBytes: offset, lengthBytes: Math.min(DAMAGE_BYTES, length) };
  }
  throw new Error('the checkpoint has no piece on a member');
}

export async function overwrite(place: Place): Promise<void> {
  const handle = await open(place.member, 'r+');
  try {
    await handle.write(randomBytes(place.lengthBytes), 0, place.lengthBytes, place.offsetBytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The faults are those that were made: on that member, in that stretch. */
export function requireFaults(faults: readonly ReadFault[], place: Place): void {
  const end = place.offsetBytes + place.lengthBytes;
  const expected = faults.filter(
    ({ member, offsetBytes }) =>
      member === place.member && offsetBytes >= place.offsetBytes && offsetBytes < end,
  );
  if (expected.length === 0) throw new Error('the load did not meet the damaged copy');
}
