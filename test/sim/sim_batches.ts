// Short ways to build the flat batches of the port in tests: one object per op instead of columns.
//
// It builds, and decides nothing: every column is filled from what the test says.

import {
  MAX_COPIES,
  NO_MEMBER,
  type BatchOptions,
  type ReadBatch,
  type WriteBatch,
} from '../../engine/io/port.js';

export interface ReadOp {
  readonly copies: readonly { readonly slot: number; readonly offsetBytes: number }[];
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly sums: readonly bigint[];
  readonly wantedOffsetBytes?: number;
  readonly wantedBytes?: number;
}
export interface WriteOp {
  readonly copies: readonly { readonly slot: number; readonly offsetBytes: number }[];
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly bytes: Uint8Array;
}

function fillCopies(members: Uint16Array, offsets: Float64Array, op: number, copies: ReadOp['copies']): void {
  copies.forEach((copy, k) => {
    members[op * MAX_COPIES + k] = copy.slot;
    offsets[op * MAX_COPIES + k] = copy.offsetBytes;
  });
}

/** `outputs[i]` is where op i puts its bytes. */
export function readBatch(
  ops: readonly ReadOp[],
  options: BatchOptions = {},
): { batch: ReadBatch; outputs: Uint8Array[] } {
  const count = ops.length;
  const outputs = ops.map((op) => new Uint8Array(op.wantedBytes ?? op.storedBytes));
  const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
  const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
  const sumIndex = new Uint32Array(count);
  const sums: bigint[] = [];
  ops.forEach((op, i) => {
    fillCopies(copyMember, copyOffsetBytes, i, op.copies);
    sumIndex[i] = sums.length;
    sums.push(...op.sums);
  });
  const batch: ReadBatch = {
    ...options,
    count,
    copyMember,
    copyOffsetBytes,
    storedBytes: Float64Array.from(ops, (op) => op.storedBytes),
    segmentBytes: Float64Array.from(ops, (op) => op.segmentBytes),
    wantedOffsetBytes: Float64Array.from(ops, (op) => op.wantedOffsetBytes ?? 0),
    wantedBytes: Float64Array.from(ops, (op) => op.wantedBytes ?? op.storedBytes),
    sumIndex,
    sums: BigUint64Array.from(sums),
    destination: Uint32Array.from(ops, (_op, i) => i),
    destinationOffsetBytes: new Float64Array(count),
    destinations: outputs,
  };
  return { batch, outputs };
}

export function writeBatch(ops: readonly WriteOp[], options: BatchOptions = {}): WriteBatch {
  const count = ops.length;
  const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
  const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
  const sumIndex = new Uint32Array(count);
  let sumCount = 0;
  ops.forEach((op, i) => {
    fillCopies(copyMember, copyOffsetBytes, i, op.copies);
    sumIndex[i] = sumCount;
    sumCount += Math.ceil(op.storedBytes / op.segmentBytes);
  });
  return {
    ...options,
    count,
    copyMember,
    copyOffsetBytes,
    rawBytes: Float64Array.from(ops, (op) => op.bytes.length),
    storedBytes: Float64Array.from(ops, (op) => op.storedBytes),
    segmentBytes: Float64Array.from(ops, (op) => op.segmentBytes),
    pieceStart: Uint32Array.from(ops, (_op, i) => i),
    pieceCount: new Uint32Array(count).fill(1),
    pieceBytes: Float64Array.from(ops, (op) => op.bytes.length),
    pieceOffsetBytes: new Float64Array(count),
    pieceSource: Int32Array.from(ops, (_op, i) => i),
    pieceSourceOffsetBytes: new Float64Array(count),
    sources: ops.map((op) => op.bytes),
    files: [],
    sumIndex,
    segmentSums: new BigUint64Array(sumCount),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(count),
  };
}
