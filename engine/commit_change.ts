// The one catalog change that makes a version: what a commit adds to the trees.
//
// Invariants
//   1. Everything is checked before anything is put, so a refused commit costs its round nothing.
//   2. Births of extents, copies and sum leaves are the sequence of the root that the change is in.
//   3. An extent's reference count grows by one for each version whose manifest names it, however often, and by one
//      for each extent that is a delta of it.
//   4. `latest` and the other tags move in the same change as the version appears.
//
// This file never writes chunks; it writes the pages of sum leaves (sum_leaves.ts), whose header needs the birth.

import { type Sealing, decodeExtent, encodeExtent } from '../format/extent_record.js';
import {
  StoreError,
  TREE_KEYS,
  assert,
  dataKeyKey,
  decodeRun,
  decodeTag,
  encodeManifest,
  encodeRun,
  encodeTag,
  encodeVersion,
  extentKey,
  runKey,
  stepKey,
  tagKey,
  versionKey,
  runVersionKey,
} from '../format/index.js';
import type { Blob, File, Manifest, Piece, Tensor, VersionRecord } from '../format/index.js';
import { INLINE_VALUE_BYTES_MAX } from '../format/limits.js';
import type { ChunkDraft } from './chunk_packer.js';
import type { CatalogChange, SpaceGrant } from './contract.js';
import { type HeadFields, sealHead } from './keys/extent_heads.js';
import type { NewAttempt } from './keys/key_ring.js';
import type { LinkedCopies } from './linked_copies.js';
import { type FileDraft, type ObjectDraft, draftPieces, draftSum, fileTotals } from './object_draft.js';
import { oweResilver } from './repair/resilver_record.js';
import type { StoreContext } from './store_context.js';
import { INLINE_SUM_LIMIT, type LeafPlace, type SumLeafPlan, startSumLeaves } from './sum_leaves.js';

const NO_TREE_VALUE = new Uint8Array(0);

export interface ManifestPlan {
  readonly manifest: Manifest;
  readonly encoded: Uint8Array;
  readonly rawBytes: number;
  /** Extents of other versions that this one names too, ascending. */
  readonly linkedIds: readonly number[];
}

export interface CommitPlan {
  readonly run: string;
  readonly step: number | null;
  readonly tags: readonly string[];
  readonly createdAtMs: number;
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
  readonly baseVersionId: number;
  /** Keys of this attempt; null: the store is not encrypted. */
  readonly attempt: NewAttempt | null;
  readonly chunks: readonly ChunkDraft[];
  readonly manifest: ManifestPlan;
  /** Sum leaves of the chunks, placed before the change begins. */
  readonly leaves: SumLeafPlan;
  /** Copies that linked extents lacked, placed before the change begins. */
  readonly linkedCopies: LinkedCopies;
}

function firstPlace(pieces: readonly Piece[]): number {
  return pieces[0]?.extentId ?? 0;
}

/** Everything of the manifest; all chunks must be written. Tensors come in on-disk order. */
export function buildManifest(
  context: StoreContext,
  tensors: readonly ObjectDraft[],
  blobs: readonly ObjectDraft[],
  files: readonly FileDraft[],
): ManifestPlan {
  const linked = new Set<number>();
  let rawBytes = 0;
  const byFile = new Map<number, { draft: ObjectDraft; sum: bigint }[]>();
  const common = (
    draft: ObjectDraft,
  ): { pieces: readonly Piece[]; rawSum: bigint; inlineBytes: Uint8Array } => {
    rawBytes += draft.rawBytes;
    const pieces = draftPieces(draft);
    for (const piece of draft.linked ?? []) linked.add(piece.extentId);
    for (const { piece } of draft.parts) if (piece.link !== null) linked.add(piece.link.extentId);
    return {
      pieces,
      rawSum: draftSum(draft),
      inlineBytes: draft.inline ?? NO_TREE_VALUE,
    };
  };
  const tensorRecords = tensors.map((draft): Tensor => {
    const body = common(draft);
    if (draft.fileIndex >= 0) {
      const list = byFile.get(draft.fileIndex);
      const entry = { draft, sum: body.rawSum };
      if (list === undefined) byFile.set(draft.fileIndex, [entry]);
      else list.push(entry);
    }
    const { name, shape, rawBytes: bytes, fileIndex, fileOffset } = draft;
    return { name, dtype: draft.dtypeCode, shape, rawBytes: bytes, fileIndex, fileOffset, ...body };
  });
  tensorRecords.sort(
    (a, b) =>
      firstPlace(a.pieces) - firstPlace(b.pieces) ||
      (a.pieces[0]?.rawOffset ?? 0) - (b.pieces[0]?.rawOffset ?? 0),
  );
  const blobRecords = blobs.map((draft): Blob => {
    const fileIndex = files.findIndex((file) => file.prefix === null && file.name === draft.name);
    return {
      name: draft.name,
      contentType: draft.contentType,
      rawBytes: draft.rawBytes,
      fileIndex,
      ...common(draft),
    };
  });
  const blobOf = new Map(blobRecords.map((blob) => [blob.name, blob]));
  const fileRecords = files.map(
    (file, index): File => fileRecord(context, file, byFile.get(index) ?? [], blobOf),
  );
  const manifest: Manifest = { tensors: tensorRecords, blobs: blobRecords, files: fileRecords };
  return {
    manifest,
    encoded: encodeManifest(manifest),
    rawBytes,
    linkedIds: [...linked].sort((a, b) => a - b),
  };
}

function fileRecord(
  context: StoreContext,
  file: FileDraft,
  tensors: readonly { draft: ObjectDraft; sum: bigint }[],
  blobOf: Map<string, Blob>,
): File {
  const { name, mode } = file;
  if (file.prefix !== null) {
    const totals = fileTotals(file, context.io.checksum.crc64(file.prefix), tensors);
    return { name, mode, format: 1, prefix: file.prefix, ...totals };
  }
  const blob = blobOf.get(name);
  if (blob === undefined)
    throw new StoreError('E_USAGE', `file ${name} has no blob of its name`, { where: { file: name } });
  return { name, mode, format: 0, prefix: NO_TREE_VALUE, sizeBytes: blob.rawBytes, sum: blob.rawSum };
}

/** Applies the plan inside a catalog change. Returns what the version became. */
export async function applyCommit(
  context: StoreContext,
  change: CatalogChange,
  plan: CommitPlan,
): Promise<{ record: VersionRecord; manifest: Manifest }> {
  await plan.linkedCopies.apply(change);
  const linkedBytes = await referenceLinked(change, plan);
  const leafWrites = startSumLeaves(context, change, plan.leaves);
  try {
    const storedBytes = linkedBytes + (await putExtents(context, change, plan));
    await leafWrites.putRecords();
    return await putVersion(context, change, plan, storedBytes);
  } finally {
    await leafWrites.settle();
  }
}

/** The records of what this version wrote; resolves to the bytes that its copies take. */
async function putExtents(context: StoreContext, change: CatalogChange, plan: CommitPlan): Promise<number> {
  let storedBytes = 0;
  let isShort = false;
  for (const chunk of plan.chunks) {
    // Copies on members that failed since they were written are not named: wanted stays, actual is fewer.
    const grants = chunk.grants.filter((grant) => change.takesSpace(grant));
    if (grants.length === 0) throw lostChunk(chunk);
    storedBytes += chunk.storedBytes * grants.length;
    isShort ||= grants.length < Math.min(plan.redundancy, context.writableMembers.length);
    for (const grant of grants) change.useSpace(grant);
    await change.put(
      2,
      extentKey(chunk.id),
      encodeChunk(context, chunk, grants, plan.leaves.placeOf.get(chunk) ?? null, change.sequence, plan),
    );
  }
  // A member that failed and came back meanwhile can take what it lost: nothing else would say so (members.md M14).
  if (isShort) await oweResilver(change, context.nowMs());
  return storedBytes;
}

async function putVersion(
  _context: StoreContext,
  change: CatalogChange,
  plan: CommitPlan,
  storedBytes: number,
): Promise<{ record: VersionRecord; manifest: Manifest }> {
  const id = change.takeVersionId();
  const record = versionRecord(plan, id, storedBytes);
  const encoded = encodeVersion(record);
  await change.put(1, versionKey(id, 0), encoded);
  await change.put(1, versionKey(id, 1), plan.manifest.encoded);
  await putDataKey(change, plan);
  await updateRun(change, plan, id, encoded);
  return { record, manifest: plan.manifest.manifest };
}

/** Extents of other versions by id, with how many more uses they get: by this version, and by deltas of them. */
function usesOf(plan: CommitPlan): [number, number][] {
  const uses = new Map(plan.manifest.linkedIds.map((id) => [id, 1]));
  for (const { coding } of plan.chunks) {
    const id = coding?.base?.extentId;
    if (id !== undefined) uses.set(id, (uses.get(id) ?? 0) + 1);
  }
  return [...uses].sort((a, b) => a[0] - b[0]);
}

/** With encryption, the data key of an attempt that sealed something: the version and each own extent use it. */
async function putDataKey(
  change: CatalogChange,
  { attempt, chunks, createdAtMs }: CommitPlan,
): Promise<void> {
  if (attempt === null || chunks.length === 0) return;
  const record = attempt.record(1 + chunks.length, createdAtMs);
  await change.put(TREE_KEYS, dataKeyKey(attempt.keys.keyId), record);
}

/** One more version names these extents, or deltas of them come. They must still be there. */
async function referenceLinked(change: CatalogChange, plan: CommitPlan): Promise<number> {
  const linked = new Set(plan.manifest.linkedIds);
  const records = [];
  for (const [id, count] of usesOf(plan)) {
    const key = extentKey(id);
    const found = change.get(2, key);
    const bytes = found instanceof Promise ? await found : found;
    if (bytes === undefined) {
      throw new StoreError(
        'E_CONFLICT',
        `the version linked to, or that is the base (v:${plan.baseVersionId}), was removed meanwhile`,
        {
          where: { object: plan.run },
          safe: 'nothing of this transaction is visible',
          next: 'begin again with another base, or put the tensors',
        },
      );
    }
    records.push({ id, key, count, extent: decodeExtent(bytes) });
  }
  let storedBytes = 0;
  for (const { id, key, count, extent } of records) {
    if (linked.has(id)) storedBytes += extent.storedBytes * extent.copies.length;
    const referenceCount = extent.referenceCount + count;
    await change.put(2, key, encodeExtent({ ...extent, referenceCount }));
  }
  return storedBytes;
}

function lostChunk(chunk: ChunkDraft): StoreError {
  return new StoreError('E_DEVICE_LOST', `every member that holds a copy of ${chunk.name} has failed`, {
    where: { tensor: chunk.name, memberIndex: chunk.grants[0]?.member ?? -1 },
    retryable: true,
    safe: 'nothing of this transaction is visible',
    next: 'write the version again: it goes to the members that are left',
  });
}

function encodeChunk(
  context: StoreContext,
  chunk: ChunkDraft,
  grants: readonly SpaceGrant[],
  place: LeafPlace | null,
  sequence: number,
  plan: CommitPlan,
): Uint8Array {
  const { sums } = chunk;
  assert(sums !== null && grants.length >= 1, 'a chunk is written before it is committed');
  assert(grants.length <= plan.redundancy, 'a chunk has no more copies than wanted');
  assert((place === null) === sums.length <= INLINE_SUM_LIMIT, 'many sums go to a leaf, few do not');
  const fields = {
    storedBytes: chunk.storedBytes,
    rawBytes: chunk.rawBytes,
    segmentShift: 31 - Math.clz32(plan.segmentBytes),
    dtype: chunk.dtypeCode,
    ...(chunk.coding === null ? {} : { coding: chunk.coding }),
  };
  return encodeExtent({
    ...fields,
    copies: grants.map((grant) => ({
      member: grant.member,
      sector: grant.sector,
      placementBirth: sequence,
    })),
    wantedCopies: plan.redundancy,
    contentBirth: sequence,
    rawSum: chunk.rawSum,
    segmentSums: place === null ? sums : new BigUint64Array(0),
    sumLeafId: place?.leafId ?? 0,
    sumLeafSlot: place?.slot ?? 0,
    referenceCount: 1,
    ...sealedFields(context, chunk, fields, place, plan),
  });
}

/** What a sealed extent's record has in place of its raw sum, and beside it; nothing without encryption. */
function sealedFields(
  context: StoreContext,
  chunk: ChunkDraft,
  fields: HeadFields,
  place: LeafPlace | null,
  plan: CommitPlan,
): { rawSum?: bigint; sealing?: Sealing } {
  const { attempt } = plan;
  const { sealed } = chunk;
  assert((attempt === null) === (sealed === null), 'with encryption every chunk is sealed');
  if (attempt === null || sealed === null) return {};
  // The same head for the same extent when a change is applied again: one nonce, one message.
  sealed.head ??= sealHead(
    context.catalog.keys,
    attempt.keys,
    chunk.id,
    sealed.ordinal,
    fields,
    chunk.rawSum,
  );
  const { rawSum, headTag } = sealed.head;
  const tags = place === null ? sealed.tags : NO_TREE_VALUE;
  return { rawSum, sealing: { keyId: attempt.keys.keyId, ordinal: sealed.ordinal, headTag, tags } };
}

function versionRecord(plan: CommitPlan, id: number, storedBytes: number): VersionRecord {
  const { manifest } = plan.manifest;
  return {
    id,
    run: plan.run,
    step: plan.step,
    createdAtMs: plan.createdAtMs,
    tensorCount: manifest.tensors.length,
    blobCount: manifest.blobs.length,
    fileCount: manifest.files.length,
    rawBytes: plan.manifest.rawBytes,
    storedBytes,
    redundancy: plan.redundancy,
    chunkBytes: plan.chunkBytes,
    kind: 0,
    flags: 0,
    metadata: plan.metadata,
    metrics: plan.metrics,
    keyId: plan.chunks.length === 0 ? 0 : (plan.attempt?.keys.keyId ?? 0),
    baseVersionId: plan.baseVersionId,
  };
}

async function updateRun(
  change: CatalogChange,
  plan: CommitPlan,
  id: number,
  record: Uint8Array,
): Promise<void> {
  const key = runKey(plan.run);
  const found = change.get(0, key);
  const bytes = found instanceof Promise ? await found : found;
  const before = bytes === undefined ? null : decodeRun(bytes);
  await change.put(
    0,
    key,
    encodeRun({
      createdAtMs: before?.createdAtMs ?? plan.createdAtMs,
      versionCount: (before?.versionCount ?? 0) + 1,
      lastVersionId: id,
    }),
  );
  await change.put(0, runVersionKey(plan.run, id), NO_TREE_VALUE);
  if (plan.step !== null) {
    // A look-up by step then meets one leaf; a long record would only be stored twice (format.md F21).
    const carried = record.byteLength <= INLINE_VALUE_BYTES_MAX ? record : NO_TREE_VALUE;
    await change.put(0, stepKey(plan.run, plan.step, id), carried);
  }
  for (const tag of plan.tags) await moveTag(change, plan.run, tag, id, plan.createdAtMs);
}

/** Points a tag at a version; its generation counts the moves. */
export async function moveTag(
  change: CatalogChange,
  run: string,
  tag: string,
  id: number,
  nowMs: number,
): Promise<void> {
  const key = tagKey(run, tag);
  const found = change.get(0, key);
  const bytes = found instanceof Promise ? await found : found;
  const before = bytes === undefined ? null : decodeTag(bytes);
  await change.put(
    0,
    key,
    encodeTag({
      versionId: id,
      movedAtMs: nowMs,
      generation: (before?.generation ?? 0) + 1,
      protected: before?.protected ?? false,
    }),
  );
}
