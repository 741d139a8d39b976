// The free map rebuilt from everything else (format F20): what no tree reaches is free.
//
//   claims of the root -> claims of what must not be written yet besides -> free = data area - both
//
// Invariants
//   1. Only trees that were walked whole are believed: where one cannot be, nothing is rebuilt (E_CORRUPT) and nothing
//      was written. A hole in a tree would make what hangs below it look free.
//   2. What the root's parent reaches, the old free tree's own pages and ranges that the root still defers are left
//      neither free nor reachable; the first commit frees them (deferred), as if the root itself had (commit.md C2).
//   3. Memory is a window of WINDOW_REGIONS regions at a time, and the runs found.
//
// It writes nothing: the commit that follows does.

import { StoreError, isStoreError } from '../../format/errors.js';
import { decodeExtent, decodeSumLeaf, extentTreeRecordKind } from '../../format/extent_record.js';
import { REGION_SECTORS } from '../../format/limits.js';
import { RING_COPIES, SLOT_BYTES, decodeSlot, slotOf, slotOffset } from '../../format/index.js';
import type { PagePointer, Superblock } from '../../format/index.js';
import { TreeView } from '../btree.js';
import type { TreeId } from '../contract.js';
import type { SectorRange } from '../deferred.js';
import { readDeferred } from '../free_records.js';
import { RegionNumbers, SpaceWindow, WINDOW_REGIONS } from '../fsck_space.js';
import type { Io } from '../io/port.js';
import type { PageStore } from '../page_store.js';
import { SectorRuns } from '../sector_runs.js';

const SECTOR_BYTES = 4096;
const TREE_FREE = 3;
const TREE_EXTENTS = 2;
const TREES: readonly TreeId[] = [0, 1, 2, 3, 4, 5];

export interface RebuiltSpace {
  /** Free runs by `member:region`; null for a region that is wholly free. */
  readonly free: ReadonlyMap<string, SectorRuns | null>;
  /** Sectors by member that are not free. */
  readonly takenSectors: ReadonlyMap<number, number>;
  /** Neither free nor reachable: for the first commit to free. */
  readonly leftovers: readonly SectorRange[];
}

/** Errors: E_CORRUPT, E_IO, E_DEVICE_LOST when a tree other than the free tree cannot be walked whole. */
export async function rebuildSpace(
  pages: PageStore,
  root: Superblock,
  parent: Superblock | null,
): Promise<RebuiltSpace> {
  const numbers = new RegionNumbers(
    root.members
      .map((entry, member) => ({ member, formattedBytes: entry.formattedBytes }))
      .filter((entry) => entry.formattedBytes > 0),
  );
  const free = new Map<string, SectorRuns | null>();
  const takenSectors = new Map<number, number>();
  const leftovers: SectorRange[] = [];
  for (let first = 0; first < numbers.total; first += WINDOW_REGIONS) {
    const count = Math.min(WINDOW_REGIONS, numbers.total - first);
    const reached = new SpaceWindow(numbers, first, count);
    const held = new SpaceWindow(numbers, first, count);
    await claimRoot(pages, root, (range) => claim(reached, range));
    await claimHeld(pages, root, parent, (range) => claim(held, range));
    for (let number = first; number < first + count; number += 1) {
      const { geometry, region } = numbers.at(number);
      const runs = new SectorRuns();
      let taken = 0;
      reached.eachRun(number, held, (kind, start, sectorCount) => {
        if (kind === 'free') {
          runs.append(start, sectorCount);
          return;
        }
        taken += sectorCount;
        if (kind === 'held')
          leftovers.push({ member: geometry.member, sector: region * REGION_SECTORS + start, sectorCount });
      });
      free.set(`${geometry.member}:${region}`, taken === 0 ? null : runs);
      takenSectors.set(geometry.member, (takenSectors.get(geometry.member) ?? 0) + taken);
    }
  }
  return { free, takenSectors, leftovers };
}

type Claim = (range: SectorRange) => void;

function claim(window: SpaceWindow, { member, sector, sectorCount }: SectorRange): void {
  window.claim(member, sector, sectorCount);
}

function claimPointer(pointer: PagePointer, each: Claim): void {
  const sectorCount = pointer.storedBytes / SECTOR_BYTES;
  for (const { member, sector } of pointer.copies) each({ member, sector, sectorCount });
}

/** Everything that the root reaches but its free tree. */
async function claimRoot(pages: PageStore, root: Superblock, each: Claim): Promise<void> {
  for (const tree of TREES) if (tree !== TREE_FREE) await claimTree(pages, root, tree, each);
}

async function claimTree(pages: PageStore, root: Superblock, tree: TreeId, each: Claim): Promise<void> {
  const view = new TreeView(pages, tree, root.treeRoots[tree] ?? null, root.treeItemCounts[tree] ?? 0);
  for await (const { pointer } of view.walkPages({ readPieces: false })) claimPointer(pointer, each);
  if (tree !== TREE_EXTENTS) return;
  for await (const { value } of view.range(new Uint8Array(0), null)) {
    if (extentTreeRecordKind(value) === 'sum-leaf') {
      for (const { member, sector } of decodeSumLeaf(value).copies) each({ member, sector, sectorCount: 1 });
      continue;
    }
    const extent = decodeExtent(value);
    const sectorCount = extent.storedBytes / SECTOR_BYTES;
    for (const { member, sector } of extent.copies) each({ member, sector, sectorCount });
  }
}

/** What must not be written yet: as much of it as can still be read. What cannot be read needs no keeping. */
async function claimHeld(
  pages: PageStore,
  root: Superblock,
  parent: Superblock | null,
  each: Claim,
): Promise<void> {
  const attempt = async (task: () => Promise<void>): Promise<void> => {
    try {
      await task();
    } catch (error) {
      if (!isStoreError(error)) throw error;
    }
  };
  await attempt(() => claimTree(pages, root, TREE_FREE, each));
  await attempt(async () => {
    const view = new TreeView(
      pages,
      TREE_FREE,
      root.treeRoots[TREE_FREE] ?? null,
      root.treeItemCounts[TREE_FREE] ?? 0,
    );
    for (const ranges of (await readDeferred(view)).values()) ranges.forEach(each);
  });
  if (parent === null) return;
  for (const tree of TREES) await attempt(() => claimTree(pages, parent, tree, each));
}

/** What a rebuild that could not be done says. */
export function rebuildRefusal(cause: unknown): StoreError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new StoreError('E_CORRUPT', `the free map cannot be rebuilt, because a tree is not whole: ${why}`, {
    cause,
    where: isStoreError(cause) ? cause.where : {},
    safe: 'nothing was written; what can be reached can still be read and exported',
    next: 'open the store for reading, export what is whole, and make it anew',
  });
}

/** A root as it would be without its free tree: what the first root of a rebuild is made from. */
export function withoutTree(root: Superblock): Superblock {
  const treeRoots = root.treeRoots.map((pointer, tree) => (tree === TREE_FREE ? null : pointer));
  const treeItemCounts = root.treeItemCounts.map((count, tree) => (tree === TREE_FREE ? 0 : count));
  return { ...root, treeRoots, treeItemCounts };
}

/** The root before this one, as far as a ring still has it. */
export async function readParent(
  io: Io,
  online: readonly { readonly slot: number; readonly formattedBytes: number }[],
  root: Superblock,
): Promise<Superblock | null> {
  const sequence = root.sequence - 1;
  if (sequence < 1) return null;
  for (const { slot, formattedBytes } of online) {
    for (let copy = 0; copy < RING_COPIES; copy += 1) {
      try {
        const bytes = await io.readRaw(slot, slotOffset(copy, sequence, formattedBytes), SLOT_BYTES);
        const found = decodeSlot(bytes, { copy, slot: slotOf(sequence) });
        if (found.kind === 'valid' && found.rootSum === root.parentRootSum) return found.superblock;
      } catch (error) {
        if (!isStoreError(error)) throw error;
      }
    }
  }
  return null;
}
