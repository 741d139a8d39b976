// Reads of coded extents: the stored stream was read and verified into scratch memory; here it becomes bytes.
//
// Invariants
//   1. Only the blocks that a part touches are decoded, straight into its destination; of an excerpt (coded_slices.ts)
//      as of a whole stream.
//   2. A part that is a whole extent is compared with the extent's raw sum; a mismatch delivers zeros and E_CORRUPT.
//   3. The base of a delta is in the destination before its stream is XORed into it.
//
// This file never reads a member.

import { assert, StoreError } from '../format/errors.js';
import type { Extent } from '../format/extent_record.js';
import { type Excerpt, DELTA } from '../format/index.js';
import { DECODE_RIGHT, DECODE_WRONG_SUM, type DecodeBatch, type Io, type IoBuffer } from './io/port.js';

/** A part to decode: raw bytes [offset, offset + bytes) of the extent. */
export interface CodedPart {
  readonly name: string;
  readonly extentId: number;
  readonly extent: Extent;
  /** storedBytes of the extent, from the start; or its excerpt. */
  readonly stream: Uint8Array;
  readonly excerpt?: Excerpt;
  readonly offset: number;
  readonly bytes: number;
  readonly destination: IoBuffer;
  readonly destinationOffset: number;
}

/** transform | delta << 8 | codec << 16, as a decode batch has them. */
export function codingIds(extent: Extent): number {
  const { coding } = extent;
  assert(coding !== undefined, 'only coded extents are decoded');
  const delta = coding.base === undefined ? DELTA.NONE : DELTA.XOR;
  return coding.transform | (delta << 8) | (coding.codec << 16);
}

/** Decodes all parts. Errors: E_CORRUPT (raw sum), E_FORMAT (the stream breaks a rule though its sums are right). */
export async function decodeParts(
  io: Io,
  object: string,
  parts: readonly CodedPart[],
  signal: AbortSignal | undefined,
): Promise<void> {
  if (parts.length === 0) return;
  const verdicts = await decodeVerdicts(io, parts, signal);
  const failed = verdicts.findIndex((verdict) => verdict !== DECODE_RIGHT);
  if (failed < 0) return;
  const part = parts[failed];
  assert(part !== undefined, 'a verdict belongs to a part');
  throw undecoded(object, part, verdicts[failed] === DECODE_WRONG_SUM);
}

/** What is thrown of a part whose stream breaks a rule, or gives other bytes than the record's sum says. */
export function undecoded(
  object: string,
  part: Pick<CodedPart, 'name' | 'extentId' | 'extent' | 'offset' | 'bytes'>,
  wrongSum: boolean,
  cause?: unknown,
): StoreError {
  const what = wrongSum ? 'does not decode to the bytes of its sum' : 'does not decode';
  const base = part.extent.coding?.base;
  const delta = base === undefined ? '' : `, a delta of extent ${base.extentId},`;
  return new StoreError(
    wrongSum ? 'E_CORRUPT' : 'E_FORMAT',
    `extent ${part.extentId} of ${part.name}${delta} ${what}`,
    {
      where: {
        object,
        tensor: part.name,
        offsetBytes: part.offset,
        lengthBytes: part.bytes,
        structure: 'Stream',
      },
      next: wrongSum ? 'ingot verify, and restore this tensor from another source' : 'ingot verify',
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

/** DECODE_RIGHT and so on for each part; destinations of what is not right are zero. */
export async function decodeVerdicts(
  io: Io,
  parts: readonly CodedPart[],
  signal: AbortSignal | undefined,
): Promise<Uint32Array> {
  const count = parts.length;
  const numbers = (value: (part: CodedPart) => number): Float64Array => Float64Array.from(parts, value);
  const whole = (part: CodedPart): boolean =>
    part.excerpt === undefined && part.offset === 0 && part.bytes === part.extent.rawBytes;
  const batch: DecodeBatch = {
    count,
    stream: Uint32Array.from(parts, (_, index) => index),
    streamOffsetBytes: new Float64Array(count),
    storedBytes: numbers((part) => part.excerpt?.streamBytes ?? part.extent.storedBytes),
    rawBytes: numbers((part) => part.excerpt?.rawBytes ?? part.extent.rawBytes),
    ids: Uint32Array.from(parts, (part) => codingIds(part.extent)),
    offsetBytes: numbers((part) => part.offset - (part.excerpt?.rawOffsetBytes ?? 0)),
    lengthBytes: numbers((part) => part.bytes),
    checkSum: Uint32Array.from(parts, (part) => Number(whole(part))),
    rawSums: BigUint64Array.from(parts, (part) => part.extent.rawSum),
    destination: Uint32Array.from(parts, (_, index) => index),
    destinationOffsetBytes: numbers((part) => part.destinationOffset),
    streams: parts.map((part) => part.stream),
    destinations: parts.map((part) => part.destination),
    verdict: new Uint32Array(count),
    ...(signal === undefined ? {} : { signal }),
  };
  const result = await io.decode(batch);
  for (let op = 0; op < count; op++) {
    if (result.status[op] === 0 || batch.verdict[op] !== DECODE_RIGHT) continue;
    signal?.throwIfAborted();
    throw new StoreError('E_IO', `${parts[op]?.name ?? 'a part'} could not be decoded: there is no memory`, {
      retryable: true,
    });
  }
  return batch.verdict;
}
