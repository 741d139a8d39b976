// Extent and sum leaf records (spec/format.md section 6): where bytes are, and their sums.
//
// Invariants
//   1. What decodes obeys F12 and the bounds of section 6; what is encoded is asserted to.
//   2. A sealed extent (cipher 1) has key id, ordinal and head tag, another has none of them; the raw sum of a sealed
//      one is itself sealed, and a record in which it was opened is never encoded (spec/encryption.md S7).
//   3. Reading or writing one extent costs a few microseconds and no bigint but its sums.
//
// It does not know whether the places are free, nor whether the members exist.

import { Builder } from 'flatbuffers';
import type { FormatContext } from './binary.js';
import { readU16, readU32, readU64, refuse } from './binary.js';
import { Copy } from './catalog/copy.js';
import { Extent as ExtentTable } from './catalog/extent.js';
import { PointerCopy } from './catalog/pointer-copy.js';
import { EXTENT_FIELD, SUM_LEAF_FIELD } from './catalog/schema.gen.js';
import { SumLeaf as SumLeafTable } from './catalog/sum-leaf.js';
import { DELTA, DELTA_DEPTH_MAX, elementBytes, PLANE_CODEC } from './codec/ids.js';
import { PLANE_CODECS } from './codec/registry.js';
import { DTYPE_CODE_BYTES, dtypeOfCode } from './dtype.js';
import { assert } from './errors.js';
import { TableCursor } from './flatbuffer_reader.js';
import { verifyRecord } from './flatbuffer_verifier.js';
import { DATA_FIRST_SECTOR } from './layout_constants.js';
import {
  COPIES_MAX,
  EXTENT_BYTES_MAX,
  EXTENT_INLINE_SUMS_MAX,
  MEMBERS_MAX,
  SECTOR_BYTES,
  SEGMENT_SHIFT_MAX,
  SEGMENT_SHIFT_MIN,
  SUM_LEAF_SUMS_MAX,
} from './limits.js';
import type { PageCopy } from './pointer.js';
import { SUM_ALGORITHM_CRC64_NVME } from './pointer.js';

export const EXTENT_IDENTIFIER = 'IGEX';
export const SUM_LEAF_IDENTIFIER = 'IGSL';
const COPY_BYTES = 24;
const POINTER_COPY_BYTES = 16;
const SECTORS_MAX = 2 ** 41;
/** The one cipher of format 1 (spec/versions.md). */
export const CIPHER_AES_256_GCM = 1;
const TAG_BYTES = 16;

export interface ExtentCopy extends PageCopy {
  /** Sequence of the root that placed the bytes there (F15). */
  readonly placementBirth: number;
}
export interface Extent {
  /** 1..3. */
  readonly copies: readonly ExtentCopy[];
  readonly wantedCopies: number;
  /** Multiple of 4,096. */
  readonly storedBytes: number;
  readonly rawBytes: number;
  readonly contentBirth: number;
  /** Segments have 2^segmentShift bytes: 12..20. */
  readonly segmentShift: number;
  readonly rawSum: bigint;
  /** One for each segment when there are at most 32, else empty. */
  readonly segmentSums: BigUint64Array;
  /** 0 when segmentSums has the sums. */
  readonly sumLeafId: number;
  readonly sumLeafSlot: number;
  /** Versions whose manifest names the extent, and extents whose delta base it is. */
  readonly referenceCount: number;
  /** Code of the chunk's dtype; 255 bytes. */
  readonly dtype: number;
  /** How the stored bytes become the raw bytes (spec/codecs.md); absent: they are the raw bytes. */
  readonly coding?: Coding;
  /** How the stored bytes are encrypted (spec/encryption.md); absent: they are not. */
  readonly sealing?: Sealing;
}
export interface Sealing {
  readonly keyId: number;
  /** Of this encryption, from the counter of its version attempt. */
  readonly ordinal: number;
  /** 16 bytes: over the record's identity and its raw sum. */
  readonly headTag: Uint8Array;
  /** 16 bytes for each segment when `segmentSums` has the sums, else empty: then they follow the sums in the leaf. */
  readonly tags: Uint8Array;
  /** The raw sum was opened: for readers, never encoded. */
  readonly isOpen?: boolean;
}
export interface Coding {
  readonly transform: number;
  /** The greatest plane codec of the stream. */
  readonly codec: number;
  /** What the stream is a difference to; absent: delta is NONE. */
  readonly base?: DeltaBase;
}
/** Raw bytes [offsetBytes, offsetBytes + rawBytes of the extent) of an older extent. */
export interface DeltaBase {
  readonly extentId: number;
  readonly offsetBytes: number;
  /** 1 for a base without a base of its own. */
  readonly depth: number;
}
export interface SumLeaf {
  readonly copies: readonly PageCopy[];
  readonly sum: bigint;
  readonly birth: number;
  readonly sumCount: number;
  /** Extents that use the leaf. */
  readonly referenceCount: number;
}

/** Segments of an extent: ceil(storedBytes / 2^segmentShift). */
export function segmentCount(extent: Pick<Extent, 'storedBytes' | 'segmentShift'>): number {
  return Math.ceil(extent.storedBytes / 2 ** extent.segmentShift);
}

/** Slots of sum leaves that an extent takes: its sums, and after them two for each tag. */
export function leafSlotCount(extent: Pick<Extent, 'storedBytes' | 'segmentShift' | 'sealing'>): number {
  return segmentCount(extent) * (extent.sealing === undefined ? 1 : 1 + TAG_BYTES / 8);
}

function sealingProblem(sealing: Sealing, count: number): string | null {
  if (!(sealing.keyId >= 1)) return 'keyId is 0 and cipher is not';
  if (!(sealing.ordinal >= 1)) return 'ordinal is 0';
  if (sealing.headTag.length !== TAG_BYTES) return 'headTag does not have 16 bytes';
  const tagBytes = count <= EXTENT_INLINE_SUMS_MAX ? count * TAG_BYTES : 0;
  return sealing.tags.length === tagBytes
    ? null
    : `${sealing.tags.length} bytes of tags for ${count} segments`;
}

function placeProblem(copies: readonly PageCopy[]): string | null {
  if (copies.length < 1 || copies.length > COPIES_MAX) return `${copies.length} copies`;
  for (const { member, sector } of copies) {
    if (!(member >= 0 && member < MEMBERS_MAX)) return `member ${member}`;
    if (!(sector >= DATA_FIRST_SECTOR && sector < SECTORS_MAX)) return `sector ${sector}`;
  }
  return null;
}

function codingProblem(coding: Coding, rawBytes: number): string | null {
  const size = elementBytes(coding.transform);
  if (size === 0 || rawBytes < size) return `transform is ${coding.transform}`;
  if (coding.codec === PLANE_CODEC.RAW || !PLANE_CODECS.has(coding.codec)) return `codec is ${coding.codec}`;
  const { base } = coding;
  if (base === undefined) return null;
  if (!(base.depth >= 1 && base.depth <= DELTA_DEPTH_MAX)) return `deltaDepth is ${base.depth}`;
  if (!(base.extentId >= 1)) return 'deltaBaseId is 0';
  return base.offsetBytes + rawBytes <= EXTENT_BYTES_MAX ? null : `deltaBaseOffset is ${base.offsetBytes}`;
}

/** Which rule an extent breaks, or null. One list for reader and writer. */
function extentProblem(extent: Extent): string | null {
  const places = placeProblem(extent.copies);
  if (places !== null) return `copies: ${places}`;
  for (const copy of extent.copies) if (!(copy.placementBirth >= 1)) return 'copies: placement birth 0';
  const { wantedCopies, storedBytes, rawBytes, segmentShift, sumLeafId, sumLeafSlot, dtype } = extent;
  if (!(wantedCopies >= 1 && wantedCopies <= COPIES_MAX)) return `wantedCopies is ${wantedCopies}`;
  if (!(rawBytes >= 1 && rawBytes <= EXTENT_BYTES_MAX)) return `rawBytes is ${rawBytes}`;
  const sectorBytes = Math.ceil(rawBytes / SECTOR_BYTES) * SECTOR_BYTES;
  const problem = extent.coding === undefined ? null : codingProblem(extent.coding, rawBytes);
  if (problem !== null) return problem;
  const storedRight =
    extent.coding === undefined
      ? storedBytes === sectorBytes
      : storedBytes >= SECTOR_BYTES && storedBytes < sectorBytes && storedBytes % SECTOR_BYTES === 0;
  if (!storedRight) return `storedBytes is ${storedBytes}`;
  if (!(extent.contentBirth >= 1)) return 'contentBirth is 0';
  if (!(segmentShift >= SEGMENT_SHIFT_MIN && segmentShift <= SEGMENT_SHIFT_MAX))
    return `segmentShift is ${segmentShift}`;
  if (!(extent.referenceCount >= 1)) return 'referenceCount is 0';
  if (dtype !== DTYPE_CODE_BYTES && dtypeOfCode(dtype) === null) return `dtype is ${dtype}`;
  const count = segmentCount(extent);
  const sealed = extent.sealing === undefined ? null : sealingProblem(extent.sealing, count);
  if (sealed !== null) return sealed;
  if (count <= EXTENT_INLINE_SUMS_MAX) {
    if (extent.segmentSums.length !== count) return `${extent.segmentSums.length} sums for ${count} segments`;
    return sumLeafId === 0 && sumLeafSlot === 0 ? null : 'names a sum leaf that it does not need';
  }
  if (extent.segmentSums.length !== 0 || sumLeafId === 0) return `${count} segments without a sum leaf`;
  const slots = leafSlotCount(extent);
  const fits = slots <= SUM_LEAF_SUMS_MAX ? sumLeafSlot + slots <= SUM_LEAF_SUMS_MAX : sumLeafSlot === 0;
  return fits ? null : `${slots} sums and tags from slot ${sumLeafSlot}`;
}

/** One builder for all small records: it keeps its memory between them. */
const builder = new Builder(1_024);

/** A finished record: the builder's bytes, copied out. */
function finish(root: number, identifier: string): Uint8Array {
  builder.finish(root, identifier);
  return builder.asUint8Array().slice();
}

export function encodeExtent(extent: Extent): Uint8Array {
  const problem = extentProblem(extent);
  assert(problem === null, `an extent obeys section 6: ${problem ?? ''}`);
  const { sealing } = extent;
  assert(sealing?.isOpen !== true, 'the raw sum of a sealed extent is stored sealed');
  builder.clear();
  const headTag = sealing === undefined ? 0 : ExtentTable.createHeadTagVector(builder, sealing.headTag);
  const tags =
    sealing === undefined || sealing.tags.length === 0
      ? 0
      : ExtentTable.createTagsVector(builder, sealing.tags);
  let sums = 0;
  if (extent.segmentSums.length > 0) {
    builder.startVector(8, extent.segmentSums.length, 8);
    for (let index = extent.segmentSums.length - 1; index >= 0; index -= 1)
      builder.addInt64(extent.segmentSums[index]!);
    sums = builder.endVector();
  }
  ExtentTable.startCopiesVector(builder, extent.copies.length);
  for (let index = extent.copies.length - 1; index >= 0; index -= 1) {
    const copy = extent.copies[index]!;
    Copy.createCopy(builder, BigInt(copy.sector), BigInt(copy.placementBirth), copy.member, 0, 0);
  }
  const copies = builder.endVector();
  ExtentTable.startExtent(builder);
  ExtentTable.addContentBirth(builder, BigInt(extent.contentBirth));
  ExtentTable.addRawSum(builder, extent.rawSum);
  if (extent.sumLeafId !== 0) ExtentTable.addSumLeafId(builder, BigInt(extent.sumLeafId));
  ExtentTable.addCopies(builder, copies);
  if (sums !== 0) ExtentTable.addSegmentSums(builder, sums);
  ExtentTable.addStoredBytes(builder, extent.storedBytes);
  ExtentTable.addRawBytes(builder, extent.rawBytes);
  ExtentTable.addReferenceCount(builder, extent.referenceCount);
  ExtentTable.addSumLeafSlot(builder, extent.sumLeafSlot);
  ExtentTable.addWantedCopies(builder, extent.wantedCopies);
  ExtentTable.addSegmentShift(builder, extent.segmentShift);
  ExtentTable.addSumAlgorithm(builder, SUM_ALGORITHM_CRC64_NVME);
  ExtentTable.addDtype(builder, extent.dtype);
  const { coding } = extent;
  if (coding !== undefined) {
    ExtentTable.addTransform(builder, coding.transform);
    ExtentTable.addCodec(builder, coding.codec);
    if (coding.base !== undefined) {
      ExtentTable.addDelta(builder, DELTA.XOR);
      ExtentTable.addDeltaBaseId(builder, BigInt(coding.base.extentId));
      ExtentTable.addDeltaBaseOffset(builder, coding.base.offsetBytes);
      ExtentTable.addDeltaDepth(builder, coding.base.depth);
    }
  }
  if (sealing !== undefined) {
    ExtentTable.addCipher(builder, CIPHER_AES_256_GCM);
    ExtentTable.addKeyId(builder, BigInt(sealing.keyId));
    ExtentTable.addOrdinal(builder, BigInt(sealing.ordinal));
    if (tags !== 0) ExtentTable.addTags(builder, tags);
    ExtentTable.addHeadTag(builder, headTag);
  }
  return finish(ExtentTable.endExtent(builder), EXTENT_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeExtent(bytes: Uint8Array, where?: FormatContext): Extent {
  const cursor = new TableCursor(
    bytes,
    verifyRecord(bytes, 'Extent', EXTENT_IDENTIFIER, where),
    'Extent',
    where,
  );
  if (cursor.u8(EXTENT_FIELD.SUM_ALGORITHM) !== SUM_ALGORITHM_CRC64_NVME)
    refuse(where, 'Extent', 'sumAlgorithm', 'is not 1');
  const start = cursor.vector(EXTENT_FIELD.COPIES);
  const count = cursor.count(EXTENT_FIELD.COPIES);
  if (count > COPIES_MAX) refuse(where, 'Extent', 'copies', `${count} copies`);
  const copies: ExtentCopy[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = start + index * COPY_BYTES;
    if (readU16(bytes, at + 18) !== 0 || readU32(bytes, at + 20) !== 0)
      refuse(where, 'Extent', 'copies', 'reserved');
    copies.push({
      member: readU16(bytes, at + 16),
      sector: readU64(bytes, at, 'Extent', 'sector', where),
      placementBirth: readU64(bytes, at + 8, 'Extent', 'placementBirth', where),
    });
  }
  if (cursor.count(EXTENT_FIELD.SEGMENT_SUMS) > EXTENT_INLINE_SUMS_MAX) {
    refuse(where, 'Extent', 'segmentSums', `${cursor.count(EXTENT_FIELD.SEGMENT_SUMS)} sums in the record`);
  }
  const extent: Extent = {
    copies,
    wantedCopies: cursor.u8(EXTENT_FIELD.WANTED_COPIES),
    storedBytes: cursor.u32(EXTENT_FIELD.STORED_BYTES),
    rawBytes: cursor.u32(EXTENT_FIELD.RAW_BYTES),
    contentBirth: cursor.u64(EXTENT_FIELD.CONTENT_BIRTH, 'contentBirth'),
    segmentShift: cursor.u8(EXTENT_FIELD.SEGMENT_SHIFT),
    rawSum: cursor.sum(EXTENT_FIELD.RAW_SUM),
    segmentSums: cursor.sumVector(EXTENT_FIELD.SEGMENT_SUMS),
    sumLeafId: cursor.u64(EXTENT_FIELD.SUM_LEAF_ID, 'sumLeafId'),
    sumLeafSlot: cursor.u16(EXTENT_FIELD.SUM_LEAF_SLOT),
    referenceCount: cursor.u32(EXTENT_FIELD.REFERENCE_COUNT),
    dtype: cursor.u8(EXTENT_FIELD.DTYPE),
    ...codingOf(cursor, where),
    ...sealingOf(cursor, where),
  };
  const problem = extentProblem(extent);
  if (problem !== null) refuse(where, 'Extent', 'record', problem);
  return extent;
}

/** The sealing of a record: nothing of it with cipher 0, all of it with cipher 1. */
function sealingOf(cursor: TableCursor, where?: FormatContext): { readonly sealing?: Sealing } {
  const F = EXTENT_FIELD;
  const cipher = cursor.u8(F.CIPHER);
  if (cipher > CIPHER_AES_256_GCM) refuse(where, 'Extent', 'cipher', `is ${cipher}`);
  const tagBytes = cursor.count(F.TAGS);
  const headTagBytes = cursor.count(F.HEAD_TAG);
  if (cipher === 0) {
    const given = cursor.sum(F.KEY_ID) | cursor.sum(F.ORDINAL) | BigInt(tagBytes + headTagBytes);
    if (given !== 0n) refuse(where, 'Extent', 'cipher', 'is 0 beside a key, an ordinal or tags');
    return {};
  }
  if (headTagBytes !== TAG_BYTES) refuse(where, 'Extent', 'headTag', 'does not have 16 bytes');
  if (tagBytes > EXTENT_INLINE_SUMS_MAX * TAG_BYTES) refuse(where, 'Extent', 'tags', `has ${tagBytes} bytes`);
  const keyId = cursor.u64(F.KEY_ID, 'keyId');
  const ordinal = cursor.u64(F.ORDINAL, 'ordinal');
  const [tags, headTag] = [cursor.byteVector(F.TAGS), cursor.byteVector(F.HEAD_TAG)];
  return { sealing: { keyId, ordinal, headTag, tags } };
}

/** The coding of a record: all of its ids 0, or a codec with what belongs to it. */
function codingOf(cursor: TableCursor, where?: FormatContext): { readonly coding?: Coding } {
  const F = EXTENT_FIELD;
  const [transform, delta, codec] = [cursor.u8(F.TRANSFORM), cursor.u8(F.DELTA), cursor.u8(F.CODEC)];
  const extentId = cursor.u64(F.DELTA_BASE_ID, 'deltaBaseId');
  const offsetBytes = cursor.u32(F.DELTA_BASE_OFFSET);
  const depth = cursor.u8(F.DELTA_DEPTH);
  if (delta > DELTA.XOR) refuse(where, 'Extent', 'delta', `is ${delta}`);
  if (delta === DELTA.NONE && (extentId !== 0 || offsetBytes !== 0 || depth !== 0))
    refuse(where, 'Extent', 'delta', 'a base without a delta');
  if (codec === PLANE_CODEC.RAW && (transform !== 0 || delta !== 0))
    refuse(where, 'Extent', 'codec', 'is 0 beside a transform or delta');
  if (codec === PLANE_CODEC.RAW) return {};
  if (delta === DELTA.NONE) return { coding: { transform, codec } };
  return { coding: { transform, codec, base: { extentId, offsetBytes, depth } } };
}

export function encodeSumLeaf(leaf: SumLeaf): Uint8Array {
  const problem = sumLeafProblem(leaf);
  assert(problem === null, `a sum leaf obeys F13: ${problem ?? ''}`);
  builder.clear();
  SumLeafTable.startCopiesVector(builder, leaf.copies.length);
  for (let index = leaf.copies.length - 1; index >= 0; index -= 1) {
    const copy = leaf.copies[index]!;
    PointerCopy.createPointerCopy(builder, BigInt(copy.sector), copy.member, 0, 0);
  }
  const copies = builder.endVector();
  SumLeafTable.startSumLeaf(builder);
  SumLeafTable.addSum(builder, leaf.sum);
  SumLeafTable.addBirth(builder, BigInt(leaf.birth));
  SumLeafTable.addCopies(builder, copies);
  SumLeafTable.addReferenceCount(builder, leaf.referenceCount);
  SumLeafTable.addSumCount(builder, leaf.sumCount);
  return finish(SumLeafTable.endSumLeaf(builder), SUM_LEAF_IDENTIFIER);
}

function sumLeafProblem(leaf: SumLeaf): string | null {
  const places = placeProblem(leaf.copies);
  if (places !== null) return `copies: ${places}`;
  if (!(leaf.birth >= 1)) return 'birth is 0';
  if (!(leaf.sumCount >= 1 && leaf.sumCount <= SUM_LEAF_SUMS_MAX)) return `sumCount is ${leaf.sumCount}`;
  return leaf.referenceCount >= 1 ? null : 'referenceCount is 0';
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeSumLeaf(bytes: Uint8Array, where?: FormatContext): SumLeaf {
  const cursor = new TableCursor(
    bytes,
    verifyRecord(bytes, 'SumLeaf', SUM_LEAF_IDENTIFIER, where),
    'SumLeaf',
    where,
  );
  const start = cursor.vector(SUM_LEAF_FIELD.COPIES);
  const count = cursor.count(SUM_LEAF_FIELD.COPIES);
  if (count > COPIES_MAX) refuse(where, 'SumLeaf', 'copies', `${count} copies`);
  const copies: PageCopy[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = start + index * POINTER_COPY_BYTES;
    if (readU16(bytes, at + 10) !== 0 || readU32(bytes, at + 12) !== 0)
      refuse(where, 'SumLeaf', 'copies', 'reserved');
    copies.push({ member: readU16(bytes, at + 8), sector: readU64(bytes, at, 'SumLeaf', 'sector', where) });
  }
  const leaf: SumLeaf = {
    copies,
    sum: cursor.sum(SUM_LEAF_FIELD.SUM),
    birth: cursor.u64(SUM_LEAF_FIELD.BIRTH, 'birth'),
    sumCount: cursor.u16(SUM_LEAF_FIELD.SUM_COUNT),
    referenceCount: cursor.u32(SUM_LEAF_FIELD.REFERENCE_COUNT),
  };
  const problem = sumLeafProblem(leaf);
  if (problem !== null) refuse(where, 'SumLeaf', 'record', problem);
  return leaf;
}

/** The kind of a record of the extent tree, by its identifier. Errors: E_FORMAT. */
export function extentTreeRecordKind(bytes: Uint8Array, where?: FormatContext): 'extent' | 'sum-leaf' {
  const identifier = String.fromCharCode(...bytes.subarray(4, 8));
  if (identifier === EXTENT_IDENTIFIER) return 'extent';
  if (identifier === SUM_LEAF_IDENTIFIER) return 'sum-leaf';
  return refuse(where, 'Extent', 'identifier', 'is neither IGEX nor IGSL');
}
