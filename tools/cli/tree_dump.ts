// A catalog tree of raw members as entries: keys and records in words, and the pages that hold them.
//
// Invariants
//   1. Entries come in key order, bounded by the caller's limit; nothing is held but one path of pages.
//   2. A record that does not decode is shown as its error and its length, and the walk goes on.
//
// It opens nothing and prints nothing.

import {
  BranchPage,
  decodeDeferred,
  decodeExtent,
  decodeExtentKey,
  decodeFreeKey,
  decodeLargeValue,
  decodeJob,
  decodeJobKey,
  decodeMember,
  decodeMemberKey,
  decodeRegion,
  decodeRun,
  decodeRunsKey,
  decodeTag,
  decodeVersion,
  decodeVersionKey,
  extentTreeRecordKind,
  isStoreError,
  type LeafPage,
  type PagePointer,
  regionDataSectors,
  regionFreeSectors,
  SEALED_TREES,
  SealedPage,
  StoreError,
  type Superblock,
  toHex,
  isJobKey,
} from '../../format/index.js';
import { decodeSumLeaf } from '../../format/extent_record.js';
import { type RawMember, readPage } from './raw_members.js';

export const TREES = ['runs', 'versions', 'extents', 'free', 'members', 'keys'] as const;
export type TreeName = (typeof TREES)[number];

export interface DumpedEntry {
  readonly key: string;
  readonly value: unknown;
}
export interface DumpedPage {
  readonly level: number;
  readonly kind: 'leaf' | 'branch';
  readonly copies: readonly { readonly member: number; readonly sector: number }[];
  readonly storedBytes: number;
  readonly usedBytes: number;
  readonly birth: number;
  readonly items: number;
}

export interface TreeSource {
  readonly members: ReadonlyMap<number, RawMember>;
  readonly superblock: Superblock;
}

/** Entries of a tree, left to right. */
export async function* treeEntries(source: TreeSource, tree: TreeName): AsyncGenerator<DumpedEntry> {
  for await (const { page } of walk(source, tree)) {
    if (page instanceof SealedPage) {
      throw new StoreError('E_AUTH', `the ${tree} tree is sealed, and dump opens nothing`, {
        safe: 'everything, still sealed',
        next: 'ingot dump --pages shows what is in the clear; ingot ls, with a key, lists runs and versions',
      });
    }
    if (page instanceof BranchPage) continue;
    for (let index = 0; index < page.itemCount; index++) yield entryOf(source.superblock, tree, page, index);
  }
}

/** Pages of a tree, parents before children. */
export async function* treePages(source: TreeSource, tree: TreeName): AsyncGenerator<DumpedPage> {
  for await (const { page, pointer } of walk(source, tree)) {
    yield {
      level: page.level,
      kind: pointer.kind === 2 ? 'branch' : 'leaf',
      copies: pointer.copies.map(({ member, sector }) => ({ member, sector })),
      storedBytes: pointer.storedBytes,
      usedBytes: page.usedBytes,
      birth: page.birth,
      items: page.itemCount,
    };
  }
}

async function* walk(
  source: TreeSource,
  tree: TreeName,
): AsyncGenerator<{ readonly page: LeafPage | BranchPage | SealedPage; readonly pointer: PagePointer }> {
  const { superblock } = source;
  const treeId = TREES.indexOf(tree);
  const root = superblock.treeRoots[treeId] ?? null;
  const isSealed = superblock.seal !== null && SEALED_TREES.includes(treeId);
  const context = { storeUuid: superblock.storeUuid, treeId, rootSequence: superblock.sequence, isSealed };
  const pending: PagePointer[] = root === null ? [] : [root];
  for (let pointer = pending.pop(); pointer !== undefined; pointer = pending.pop()) {
    const page = await readPage(source.members, pointer, context);
    yield { page, pointer };
    if (page instanceof SealedPage && pointer.level > 0) pending.push(...[...page.pointers].reverse());
    if (!(page instanceof BranchPage)) continue;
    for (let index = page.itemCount - 1; index >= 0; index--) pending.push(page.child(index));
  }
}

function entryOf(superblock: Superblock, tree: TreeName, page: LeafPage, index: number): DumpedEntry {
  const key = page.key(index);
  const value = page.value(index);
  try {
    if (page.isLarge(index)) return { key: keyText(tree, key), value: largeValue(value) };
    return { key: keyText(tree, key), value: recordOf(superblock, tree, key, value) };
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return {
      key: toHex(key),
      value: { problem: `${error.code}: ${error.message}`, bytes: value.byteLength },
    };
  }
}

function largeValue(bytes: Uint8Array): unknown {
  const { rawBytes, pieceCount, pointer } = decodeLargeValue(bytes);
  return { large: { rawBytes, pieceCount, copies: pointer.copies } };
}

function keyText(tree: TreeName, key: Uint8Array): string {
  switch (tree) {
    case 'runs': {
      const decoded = decodeRunsKey(key);
      if (decoded.kind === 'tag') return `${decoded.run} tag ${decoded.tag}`;
      if (decoded.kind === 'step') return `${decoded.run} step ${decoded.step} v:${decoded.versionId}`;
      return decoded.kind === 'version' ? `${decoded.run} v:${decoded.versionId}` : `${decoded.run} run`;
    }
    case 'versions': {
      const { versionId, part } = decodeVersionKey(key);
      return `v:${versionId} ${part === 0 ? 'summary' : 'manifest'}`;
    }
    case 'extents':
      return String(decodeExtentKey(key));
    case 'free': {
      const decoded = decodeFreeKey(key);
      return decoded.kind === 'region'
        ? `member ${decoded.member} region ${decoded.region}`
        : `deferred ${decoded.sequence}`;
    }
    case 'members':
      return isJobKey(key) ? `job ${decodeJobKey(key)}` : `member ${decodeMemberKey(key)}`;
    case 'keys':
      return toHex(key);
  }
}

function recordOf(superblock: Superblock, tree: TreeName, key: Uint8Array, value: Uint8Array): unknown {
  switch (tree) {
    case 'runs': {
      const { kind } = decodeRunsKey(key);
      if (kind === 'run') return decodeRun(value);
      if (kind === 'tag') return decodeTag(value);
      return kind === 'step' && value.byteLength > 0 ? decodeVersion(value) : {};
    }
    case 'versions':
      return decodeVersionKey(key).part === 0 ? decodeVersion(value) : { manifestBytes: value.byteLength };
    case 'extents':
      return extentTreeRecordKind(value) === 'extent'
        ? decodeExtent(value)
        : { sumLeaf: decodeSumLeaf(value) };
    case 'free':
      return freeValue(superblock, key, value);
    case 'members':
      return isJobKey(key) ? decodeJob(value) : decodeMember(value);
    case 'keys':
      return { bytes: value.byteLength };
  }
}

/** Runs of free sectors shown of one region. */
const SHOWN_RUNS = 64;

function freeValue(superblock: Superblock, key: Uint8Array, value: Uint8Array): unknown {
  const decoded = decodeFreeKey(key);
  if (decoded.kind === 'deferred') return { ranges: decodeDeferred(value) };
  const formattedBytes = superblock.members[decoded.member]?.formattedBytes ?? 0;
  if (formattedBytes === 0) return { bytes: value.byteLength };
  const limits = regionDataSectors(decoded.region, formattedBytes);
  const { starts, counts } = decodeRegion(value, limits);
  const runs = Array.from(starts.subarray(0, SHOWN_RUNS), (start, index) => [start, counts[index] ?? 0]);
  return {
    freeSectors: regionFreeSectors({ starts, counts }),
    ofSectors: limits.to - limits.from,
    runCount: starts.length,
    runs,
  };
}
