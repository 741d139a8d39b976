// Reads of sealed extents: ciphertext was read and its sums matched; here tags are checked and it becomes plaintext.
//
// Invariants
//   1. Only whole segments are opened, and only what a part wants of them reaches its destination.
//   2. A tag that does not match is E_AUTH, which names the extent; the destination is zeroed. No other copy is tried:
//      the sums say that the stored bytes are those that were written there.
//   3. Keys are copied into a secret for one batch, which is released when the batch has settled.

import { StoreError, assert } from '../../format/errors.js';
import type { Extent } from '../../format/extent_record.js';
import type { CatalogView } from '../contract.js';
import type { SumView } from '../extent_source.js';
import { KEY_BYTES, TAG_BYTES } from '../io/crypt_port.js';
import type { Io, IoBuffer } from '../io/port.js';
import type { AttemptKeys, KeyRing } from './key_ring.js';

/** Bytes [offset, offset + bytes) of an extent's stored bytes to open. */
export interface SealedPart {
  readonly name: string;
  readonly extentId: number;
  readonly extent: Extent;
  /** Ciphertext from the start of the first touched segment on. */
  readonly source: Uint8Array;
  readonly sourceOffset: number;
  readonly offset: number;
  readonly bytes: number;
  readonly destination: IoBuffer;
  readonly destinationOffset: number;
}

/** The stretch of whole segments around [offset, offset + bytes). */
export function wholeSegments(
  extent: Extent,
  offset: number,
  bytes: number,
): { offset: number; bytes: number } {
  const segment = 2 ** extent.segmentShift;
  const from = Math.floor(offset / segment) * segment;
  const to = Math.min(Math.ceil((offset + bytes) / segment) * segment, extent.storedBytes);
  return { offset: from, bytes: to - from };
}

async function contentKeys(
  io: Io,
  ring: KeyRing,
  view: CatalogView,
  parts: readonly SealedPart[],
): Promise<{ keys: Uint8Array; indexOf: Map<number, number> }> {
  const indexOf = new Map<number, number>();
  const found: AttemptKeys[] = [];
  for (const { extent } of parts) {
    const keyId = extent.sealing?.keyId;
    assert(keyId !== undefined, 'only sealed extents are opened');
    if (indexOf.has(keyId)) continue;
    indexOf.set(keyId, found.length);
    found.push(await ring.attempt(view, keyId));
  }
  // Wiped keys have no bytes left: nothing is opened with zeros.
  if (found.some(({ content }) => content.length !== KEY_BYTES))
    throw new StoreError('E_CLOSED', 'the store is closed: its keys are gone');
  const keys = io.crypt.takeSecret(found.length * KEY_BYTES);
  for (const [index, each] of found.entries()) keys.set(each.content, index * KEY_BYTES);
  return { keys, indexOf };
}

/** Opens all parts. `sums` has the tags of their extents. Errors: E_AUTH. */
export async function openParts(
  io: Io,
  ring: KeyRing,
  view: CatalogView,
  object: string,
  parts: readonly SealedPart[],
  sums: SumView,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (parts.length === 0) return;
  const count = parts.length;
  const numbers = (value: (part: SealedPart) => number): Float64Array => Float64Array.from(parts, value);
  const tagIndex = new Uint32Array(count);
  const touched = parts.map(({ extent, offset, bytes }) => {
    const segment = 2 ** extent.segmentShift;
    const first = Math.floor(offset / segment);
    return { first, count: Math.ceil((offset + bytes) / segment) - first };
  });
  let tagCount = 0;
  for (const [op, each] of touched.entries()) {
    tagIndex[op] = tagCount;
    tagCount += each.count;
  }
  const tags = new Uint8Array(tagCount * TAG_BYTES);
  for (const [op, { extent }] of parts.entries()) {
    const each = touched[op];
    assert(each !== undefined, 'every part touches segments');
    sums.copyTags(extent, each.first, each.count, tags, (tagIndex[op] ?? 0) * TAG_BYTES);
  }
  const { keys, indexOf } = await contentKeys(io, ring, view, parts);
  const verdict = new Uint32Array(count);
  try {
    const result = await io.openExtents({
      count,
      source: Uint32Array.from(parts, (_, op) => op),
      sourceOffsetBytes: numbers((part) => part.sourceOffset),
      storedBytes: numbers((part) => part.extent.storedBytes),
      segmentBytes: numbers((part) => 2 ** part.extent.segmentShift),
      keyIndex: Uint32Array.from(parts, (part) => indexOf.get(part.extent.sealing?.keyId ?? 0) ?? 0),
      keys,
      ordinals: BigUint64Array.from(parts, (part) => BigInt(part.extent.sealing?.ordinal ?? 0)),
      tagIndex,
      tags,
      buffers: parts.map((part) => part.source),
      wantedOffsetBytes: numbers((part) => part.offset),
      wantedBytes: numbers((part) => part.bytes),
      destination: Uint32Array.from(parts, (_, op) => op),
      destinationOffsetBytes: numbers((part) => part.destinationOffset),
      destinations: parts.map((part) => part.destination),
      verdict,
      ...(signal === undefined ? {} : { signal }),
    });
    judge(object, parts, verdict, result.status, signal);
  } finally {
    io.crypt.releaseSecret(keys);
  }
}

function judge(
  object: string,
  parts: readonly SealedPart[],
  verdict: Uint32Array,
  status: Uint8Array,
  signal: AbortSignal | undefined,
): void {
  const failed = status.findIndex((each) => each !== 0);
  if (failed < 0) return;
  const part = parts[failed];
  assert(part !== undefined, 'a status belongs to a part');
  const { name, extentId, offset, bytes } = part;
  if (verdict[failed] === 0) {
    signal?.throwIfAborted();
    throw new StoreError('E_IO', `${name} could not be opened: there is no memory`, { retryable: true });
  }
  throw new StoreError(
    'E_AUTH',
    `extent ${extentId} of ${name} is not what was sealed: a tag does not match`,
    {
      where: { object, tensor: name, offsetBytes: offset, lengthBytes: bytes, structure: 'Extent' },
      safe: 'nothing of it was returned; every sum on the way was right, so this is no plain bit rot',
      next: 'treat the drives as touched by somebody else; restore this tensor from a copy that you trust',
    },
  );
}
