// What the code makes of one test vector: structure name, context and bytes in, plain JSON out.
//
// Invariants
//   1. The answer is JSON: sums and other 64-bit patterns are '0x' and 16 digits, bytes are hex, sizes and ids numbers.
//   2. Every structure that spec/vectors/ has is known here; an unknown one is an error.

import {
  codecOfStream,
  crc64,
  decodeChunk,
  decodeDataKey,
  decodeDeferred,
  decodeExtent,
  decodeFreeKey,
  decodeExtentKey,
  decodeHeartbeat,
  decodeKeySlots,
  decodeHints,
  decodeLargeValue,
  decodeManifest,
  decodeJob,
  decodeJobKey,
  decodeMember,
  decodeMemberKey,
  decodePage,
  decodePointer,
  decodeRegion,
  decodeRun,
  decodeRunsKey,
  decodeSlot,
  decodeSealedPage,
  decodeSumLeaf,
  decodeSumLeafPage,
  decodeTag,
  decodeValueIndex,
  decodeValuePiece,
  decodeVersion,
  decodeVersionKey,
  toHex,
  checkPageSum,
  parseStream,
} from '../../format/index.js';
import type { BranchPage, LeafPage, LargeValue, PagePointer, ValuePiece } from '../../format/index.js';
import { patternBase } from './cases_codec.js';
import { decodeSimpleZstd } from './zstd_frames.js';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Any value of the format as JSON (invariant 1). Bigints in typed arrays included. */
export function toJson(value: unknown): Json {
  if (value === null || value === undefined) return null;
  if (typeof value === 'bigint') return `0x${value.toString(16).padStart(16, '0')}`;
  if (value instanceof Uint8Array) return toHex(value);
  if (value instanceof Uint32Array) return [...value];
  if (value instanceof BigUint64Array) return [...value].map(toJson);
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toJson(item)]));
  }
  return value as boolean | number | string;
}

/** What a vector says beside its bytes. Pointers and large values come as the code's own types. */
export interface VectorContext {
  readonly copy?: number;
  readonly slot?: number;
  readonly storeUuid?: string;
  readonly treeId?: number;
  readonly rootSequence?: number;
  readonly pointer?: Json;
  readonly largeValue?: Json;
  readonly piece?: Json;
  readonly birth?: number;
  readonly ownerId?: number;
  readonly sumCount?: number;
  /** The base of a delta: byte i is i modulo this. */
  readonly baseModulus?: number;
}

const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from({ length: hex.length / 2 }, (_, index) =>
    Number.parseInt(hex.slice(index * 2, index * 2 + 2), 16),
  );

function pointerOf(json: Json | undefined): PagePointer {
  const pointer = json as unknown as { readonly sum: string } & Omit<PagePointer, 'sum'>;
  return { ...pointer, sum: BigInt(pointer.sum) };
}
function largeValueOf(json: Json | undefined): LargeValue {
  const value = json as unknown as LargeValue & { readonly pointer: Json };
  return { ...value, pointer: pointerOf(value.pointer) };
}
function pieceOf(json: Json | undefined): ValuePiece {
  const value = json as unknown as ValuePiece & { readonly pointer: Json };
  return { ...value, pointer: pointerOf(value.pointer) };
}

function pageItems(page: LeafPage | BranchPage): unknown {
  const indexes = Array.from({ length: page.itemCount }, (_, index) => index);
  if ('find' in page) {
    return indexes.map((index) => ({
      key: page.key(index),
      value: page.value(index),
      isLarge: page.isLarge(index),
    }));
  }
  return indexes.map((index) => ({ key: page.key(index), pointer: page.child(index) }));
}

function evaluatePage(structure: string, bytes: Uint8Array, context: VectorContext): unknown {
  const where = { storeUuid: fromHex(context.storeUuid ?? ''), treeId: context.treeId ?? 0 };
  const pageContext =
    context.rootSequence === undefined ? where : { ...where, rootSequence: context.rootSequence };
  switch (structure) {
    case 'Page': {
      const pointer = pointerOf(context.pointer);
      checkPageSum(bytes, pointer);
      return pageItems(decodePage(bytes, pointer, pageContext));
    }
    case 'SealedPage': {
      const pointer = pointerOf(context.pointer);
      checkPageSum(bytes, pointer);
      const { itemCount, pointers } = decodeSealedPage(bytes, pointer, { ...pageContext, isSealed: true });
      return { itemCount, pointers };
    }
    case 'ValueIndexPage': {
      const value = largeValueOf(context.largeValue);
      checkPageSum(bytes, value.pointer);
      return decodeValueIndex(bytes, value, pageContext);
    }
    case 'ValuePiecePage': {
      const piece = pieceOf(context.piece);
      checkPageSum(bytes, piece.pointer);
      return decodeValuePiece(bytes, piece, pageContext);
    }
    default: {
      const { birth = 0, ownerId = 0, sumCount = 0 } = context;
      return decodeSumLeafPage(bytes, { storeUuid: where.storeUuid, birth, ownerId, sumCount });
    }
  }
}

function evaluateStream(bytes: Uint8Array, context: VectorContext): unknown {
  const header = parseStream(bytes);
  const { rawBytes } = header;
  const base = context.baseModulus === undefined ? {} : { base: patternBase(rawBytes) };
  const raw = decodeChunk(bytes, { rawBytes, host: { decodeZstd: decodeSimpleZstd }, ...base });
  const codecs = header.planes.map((plane) => plane.codec);
  const { transform, delta } = header;
  return { transform, delta, codec: codecOfStream(header), rawBytes, codecs, rawSum: crc64(raw) };
}

const SIMPLE: Readonly<Record<string, (bytes: Uint8Array) => unknown>> = {
  Sum: (bytes) => crc64(bytes),
  PagePointer: (bytes) => decodePointer(bytes, 0),
  LargeValue: (bytes) => decodeLargeValue(bytes),
  Region: (bytes) => decodeRegion(bytes),
  Deferred: (bytes) => decodeDeferred(bytes),
  Hints: decodeHints,
  Heartbeat: decodeHeartbeat,
  RunsKey: (bytes) => decodeRunsKey(bytes),
  VersionKey: (bytes) => decodeVersionKey(bytes),
  ExtentKey: (bytes) => decodeExtentKey(bytes),
  FreeKey: (bytes) => decodeFreeKey(bytes),
  MemberKey: (bytes) => decodeMemberKey(bytes),
  JobKey: (bytes) => decodeJobKey(bytes),
  Run: (bytes) => decodeRun(bytes),
  Tag: (bytes) => decodeTag(bytes),
  Version: (bytes) => decodeVersion(bytes),
  Manifest: (bytes) => decodeManifest(bytes),
  Extent: (bytes) => decodeExtent(bytes),
  SealedExtent: (bytes) => decodeExtent(bytes),
  DataKey: (bytes) => decodeDataKey(bytes),
  SumLeaf: (bytes) => decodeSumLeaf(bytes),
  Member: (bytes) => decodeMember(bytes),
  Job: (bytes) => decodeJob(bytes),
};

/** What the code makes of the vector. Throws what the decoder throws. */
export function evaluate(structure: string, bytes: Uint8Array, context: VectorContext): Json {
  if (structure === 'Superblock' || structure === 'SealedSuperblock') {
    return toJson(decodeSlot(bytes, { copy: context.copy ?? 0, slot: context.slot ?? 0 }));
  }
  if (structure.endsWith('Page')) return toJson(evaluatePage(structure, bytes, context));
  if (structure === 'Stream') return toJson(evaluateStream(bytes, context));
  if (structure === 'KeySlots') return toJson(decodeKeySlots(bytes, fromHex(context.storeUuid ?? '')));
  const decode = SIMPLE[structure];
  if (decode === undefined) throw new Error(`no such structure: ${structure}`);
  return toJson(decode(bytes));
}
