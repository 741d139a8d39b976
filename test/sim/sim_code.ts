// Coding in the simulated port: the portable codec of format/, one event after the batch was handed over.
//
// Invariants
//   1. The same answers as the native port: streams, codecs, sums, verdicts, zeroed bytes where they are not right.
//   2. What was coded before is not coded again (content_memo.ts); the verdict on a stream is the decoder's own.
//   3. An abort before the event leaves every op aborted and every destination as it was.

import type { BatchResult, DecodeBatch, EncodeBatch, WriteResult } from '../../engine/io/port.js';
import { BASE_DELTA, BASE_LINK } from '../../engine/io/port.js';
import { DECODE_BROKEN, DECODE_OTHER, DECODE_RIGHT, DECODE_WRONG_SUM } from '../../engine/io/port.js';
import { isStoreError } from '../../format/errors.js';
import { codecOfStream, decodeChunk, DELTA, encodeChunk, parseStream } from '../../format/index.js';
import { gather, viewOf } from './sim_batch.js';
import { ContentMemo } from './content_memo.js';
import { simCrc64 } from './sim_checksum.js';
import type { SimIo } from './sim_io.js';

const STATUS_FAILED = 1;
const SECTOR_BYTES = 4096;
const STREAMS_BYTES_MAX = 64 * 1024 * 1024;
const CONTENTS_BYTES_MAX = 64 * 1024 * 1024;

const streams = new ContentMemo<Uint8Array | null>(STREAMS_BYTES_MAX);
const contents = new ContentMemo<Uint8Array>(CONTENTS_BYTES_MAX);

export function runEncodeBatch(io: SimIo, batch: EncodeBatch): WriteResult {
  batch.signal?.throwIfAborted();
  const status = new Uint8Array(batch.count);
  const sourceFaults: WriteResult['sourceFaults'][number][] = [];
  for (let op = 0; op < batch.count; op += 1) {
    const rawBytes = batch.rawBytes[op]!;
    const raw = gather(io, batch, op, rawBytes, sourceFaults);
    if (raw === null) {
      status[op] = STATUS_FAILED;
      continue;
    }
    const use = batch.baseUse[op]!;
    if ((use & BASE_DELTA) !== 0) fillGaps(batch, op, raw);
    batch.rawSums[op] = simCrc64(raw);
    const isEqual = use !== 0 && comparePieces(batch, op, raw);
    const stream = isEqual && (use & BASE_LINK) !== 0 ? null : encodeSmaller(batch, op, raw);
    const header = stream === null ? null : parseStream(stream);
    batch.streamBytes[op] = stream === null ? 0 : stream.byteLength;
    batch.codecs[op] = header === null ? 0 : codecOfStream(header);
    batch.deltas[op] = header === null ? 0 : header.delta;
    if (header !== null) io.world.streams.encoded += 1;
    if (header?.delta === DELTA.XOR) io.world.streams.deltas += 1;
    batch.destinations[op]!.set(stream ?? raw);
  }
  return { status, faults: [], bytesByPath: {}, sourceFaults };
}

/** The stream of these bytes; shared, so not to be written to. */
function encoded(raw: Uint8Array, transform: number, base: Uint8Array | null): Uint8Array | null {
  const parts = base === null ? [raw] : [raw, base];
  const make = (): Uint8Array | null => encodeChunk(raw, { transform, ...(base === null ? {} : { base }) });
  return streams.get(parts, transform, make, (stream) => stream?.byteLength ?? 0);
}

/**
 * The raw bytes of a stream, a delta as if against zeros; shared, so not to be written to. What does not decode is
 * refused anew each time.
 */
function decoded(stream: Uint8Array, rawBytes: number, isDelta: boolean): Uint8Array {
  const make = (): Uint8Array =>
    decodeChunk(stream, { rawBytes, ...(isDelta ? { base: new Uint8Array(rawBytes) } : {}) });
  return contents.get([stream], 2 * rawBytes + Number(isDelta), make, (raw) => raw.byteLength);
}

/** Alone or as a difference to the base; the simulator codes both and takes the smaller. */
function encodeSmaller(batch: EncodeBatch, op: number, raw: Uint8Array): Uint8Array | null {
  if (batch.profile[op] === 0) return null;
  const transform = batch.transform[op]!;
  const alone = encoded(raw, transform, null);
  if ((batch.baseUse[op]! & BASE_DELTA) === 0) return alone;
  const delta = encoded(raw, transform, batch.bases[op]!.subarray(0, raw.byteLength));
  if (delta === null || alone === null) return delta ?? alone;
  const sectors = (stream: Uint8Array): number => Math.ceil(stream.byteLength / SECTOR_BYTES);
  return sectors(delta) < sectors(alone) ? delta : alone;
}

/** The places of an op's pieces in the raw bytes. */
function piecesOf(batch: EncodeBatch, op: number): { index: number; from: number; to: number }[] {
  const first = batch.pieceStart[op]!;
  return Array.from({ length: batch.pieceCount[op]! }, (_unused, i) => {
    const from = batch.pieceOffsetBytes[first + i]!;
    return { index: first + i, from, to: from + batch.pieceBytes[first + i]! };
  });
}

function fillGaps(batch: EncodeBatch, op: number, raw: Uint8Array): void {
  let at = 0;
  for (const { from, to } of piecesOf(batch, op)) {
    raw.set(batch.bases[op]!.subarray(at, from), at);
    at = to;
  }
}

function comparePieces(batch: EncodeBatch, op: number, raw: Uint8Array): boolean {
  let all = true;
  for (const { index, from, to } of piecesOf(batch, op)) {
    const isEqual = Buffer.compare(raw.subarray(from, to), batch.bases[op]!.subarray(from, to)) === 0;
    batch.pieceEqual[index] = Number(isEqual);
    all &&= isEqual;
  }
  return all;
}

function decodeOp(batch: DecodeBatch, op: number, target: Uint8Array): number {
  const start = batch.streamOffsetBytes[op]!;
  const stream = batch.streams[batch.stream[op]!]!.subarray(start, start + batch.storedBytes[op]!);
  const rawBytes = batch.rawBytes[op]!;
  try {
    const header = parseStream(stream);
    const ids = header.transform | (header.delta << 8) | (codecOfStream(header) << 16);
    if (ids !== batch.ids[op] || header.rawBytes !== rawBytes) return DECODE_OTHER;
    // Without the whole base only the XOR of the range is known: decode as if against zeros, then XOR the range.
    const delta = header.delta === DELTA.XOR;
    const raw = decoded(stream, rawBytes, delta);
    const from = batch.offsetBytes[op]!;
    if (!delta) target.set(raw.subarray(from, from + target.length));
    else for (let i = 0; i < target.length; i += 1) target[i] = target[i]! ^ raw[from + i]!;
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return DECODE_BROKEN;
  }
  if (batch.checkSum[op] !== 0 && simCrc64(target) !== batch.rawSums[op]) return DECODE_WRONG_SUM;
  return DECODE_RIGHT;
}

export function runDecodeBatch(io: SimIo, batch: DecodeBatch): BatchResult {
  batch.signal?.throwIfAborted();
  const status = new Uint8Array(batch.count);
  for (let op = 0; op < batch.count; op += 1) {
    const at = batch.destinationOffsetBytes[op]!;
    const destination = viewOf(batch.destinations[batch.destination[op]!]!);
    const target = destination.subarray(at, at + batch.lengthBytes[op]!);
    const verdict = decodeOp(batch, op, target);
    batch.verdict[op] = verdict;
    if (verdict === DECODE_RIGHT) {
      io.world.streams.decoded += 1;
      continue;
    }
    status[op] = STATUS_FAILED;
    target.fill(0);
  }
  return { status, faults: [], bytesByPath: {} };
}
