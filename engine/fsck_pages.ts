// fsck, first half: superblocks, every page with all its copies, and the partition of every member.
//
// Invariants
//   1. A page is claimed by every copy its pointer names, whether or not that copy can be read.
//   2. The trees are walked once with every copy of every page verified, then once more for each further window
//      of regions (stores over WINDOW_REGIONS GiB), without.
//   3. When a tree could not be walked whole, leaks are not reported: they would follow from that alone.

import { StoreError, isStoreError } from '../format/errors.js';
import { decodeExtent, decodeSumLeaf, extentTreeRecordKind } from '../format/extent_record.js';
import type { Extent, SumLeaf } from '../format/extent_record.js';
import {
  DATA_FIRST_SECTOR,
  RING_COPIES,
  SLOT_BYTES,
  TREE_EXTENTS,
  TREE_FREE,
  dataEndSector,
  decodeExtentKey,
  decodeFreeKey,
  decodeSlot,
  rootSumOf,
  slotOf,
  slotOffset,
} from '../format/index.js';
import type { PagePointer } from '../format/index.js';
import type { Catalog, TreeId } from './contract.js';
import type { FsckContext } from './fsck_context.js';
import { SpaceWindow, WINDOW_REGIONS } from './fsck_space.js';
import { readDeferred, readRegion } from './free_records.js';

const SECTOR_BYTES = 4096;
const TREES: readonly TreeId[] = [0, 1, 2, 3, 4, 5];
const KIND_LEAF = 1;
const KIND_SUM_LEAF = 5;
/** Items between two steps of a pass. */
export const ITEMS_PER_STEP = 1_024;
const EMPTY = new Uint8Array(0);

/** A copy of the newest root's superblock that is not as it should be. */
export interface BadSuperblock {
  readonly member: number;
  readonly copy: number;
  readonly sequence: number;
  readonly offsetBytes: number;
  readonly reason: string;
}

/** All four copies of the newest root's superblock on every member in sync that is there. */
export async function badSuperblocks(catalog: Catalog, signal?: AbortSignal): Promise<BadSuperblock[]> {
  const { superblock: root } = catalog;
  const wanted = rootSumOf(root);
  const bad: BadSuperblock[] = [];
  for (const state of catalog.members) {
    const entry = root.members[state.index];
    if (state.device === null || entry === undefined || state.servedThrough !== Infinity) continue;
    for (let copy = 0; copy < RING_COPIES; copy += 1) {
      signal?.throwIfAborted();
      const offsetBytes = slotOffset(copy, root.sequence, entry.formattedBytes);
      const place = { member: state.index, copy, sequence: root.sequence, offsetBytes };
      try {
        const bytes = await catalog.io.readRaw(state.device.slot, offsetBytes, SLOT_BYTES, { priority: 2 });
        const slot = decodeSlot(bytes, { copy, slot: slotOf(root.sequence) });
        if (slot.kind === 'valid' && slot.rootSum === wanted && slot.memberIndex === state.index) continue;
        const reason =
          slot.kind === 'invalid'
            ? `its ${slot.reason} is wrong`
            : `it is ${slot.kind === 'valid' ? 'another root' : slot.kind}`;
        bad.push({ ...place, reason });
      } catch (error) {
        signal?.throwIfAborted();
        if (!isStoreError(error) || error.code === 'E_CLOSED') throw error;
        bad.push({ ...place, reason: error.message });
      }
    }
  }
  return bad;
}

export async function* checkSuperblocks(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const { catalog, root, options } = context;
  context.scannedBytes += catalog.members.length * RING_COPIES * SLOT_BYTES;
  for (const { member, copy, offsetBytes, reason } of await badSuperblocks(catalog, options.signal)) {
    context.report({
      severity: 'warn',
      code: 'E_CORRUPT',
      message: `superblock copy ${copy} of root ${root.sequence} is not valid: ${reason}`,
      where: { ...context.place(member, offsetBytes, SLOT_BYTES), structure: 'Superblock' },
      next:
        'after a crash a copy may be missing: opening for writing (any ingot command that changes something) ' +
        'writes it again; if it comes back, suspect the drive',
    });
  }
  yield;
}

/** Claims everything that is reachable or deferred, and compares what is left with the free map. */
export async function* checkSpace(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const { total } = context.regions;
  for (let first = 0; first < total; first += WINDOW_REGIONS) {
    const window = new SpaceWindow(context.regions, first, Math.min(WINDOW_REGIONS, total - first));
    const audit = new WindowAudit(context, window, first === 0);
    for (const tree of TREES) yield* audit.claimPages(tree);
    yield* audit.claimExtents();
    yield* audit.claimDeferred();
    yield* audit.compareFree();
    if (first === 0) audit.compareAllocated();
  }
}

class WindowAudit {
  readonly #context: FsckContext;
  readonly #window: SpaceWindow;
  /** The first window also verifies, counts and judges; the others only claim. */
  readonly #verify: boolean;
  readonly #reachable = new Map<number, number>();

  constructor(context: FsckContext, window: SpaceWindow, verify: boolean) {
    this.#context = context;
    this.#window = window;
    this.#verify = verify;
  }

  async *claimPages(tree: TreeId): AsyncGenerator<void, void, undefined> {
    const context = this.#context;
    const view = context.tree(tree);
    let items = 0;
    let step = 0;
    try {
      const { signal } = context.options;
      const options = { readPieces: false, ...(signal === undefined ? {} : { signal }) };
      for await (const walked of view.walkPages(options)) {
        if (walked.page !== null && walked.kind === KIND_LEAF)
          items += (walked.page as { itemCount: number }).itemCount;
        this.#claimPage(walked.pointer, tree);
        if (this.#verify) await this.#verifyPage(walked.pointer, tree);
        step += 1;
        if (step % 64 === 0) yield;
      }
    } catch (error) {
      if (this.#verify) context.reportError(error, 'fatal', 'unrepairable');
      context.incomplete = true;
      return;
    }
    if (this.#verify && items !== view.itemCount) {
      context.report({
        severity: 'error',
        code: 'E_FORMAT',
        message: `tree ${tree} holds ${items} items, the root says ${view.itemCount}`,
      });
    }
    yield;
  }

  #claimPage(pointer: PagePointer, tree: number): void {
    const what = `a page of tree ${tree} (birth ${pointer.birth})`;
    for (const copy of pointer.copies)
      this.#claim(copy.member, copy.sector, pointer.storedBytes / SECTOR_BYTES, what);
    if (!this.#verify) return;
    const { root } = this.#context;
    if (pointer.birth < 1 || pointer.birth > root.sequence) {
      this.#complain(`${what} is younger than root ${root.sequence}`);
    }
    if (pointer.copies.length < 2) this.#complain(`${what} has a single copy`);
  }

  /** Each copy of a page by itself; a page without a good copy is lost. */
  async #verifyPage(pointer: PagePointer, tree: number): Promise<void> {
    const context = this.#context;
    const verdicts = await context.pages.verifyCopies(pointer, tree);
    const lost = verdicts.every((fault) => fault !== null);
    context.scannedBytes += pointer.storedBytes * pointer.copies.length;
    for (const fault of verdicts) {
      if (fault === null) continue;
      const absent = fault.kind === 'missing';
      const state = absent ? 'is on a missing member' : `cannot be used (${fault.kind})`;
      const message = `a copy of a page of tree ${tree} ${state}`;
      const where = {
        ...context.place(fault.member, fault.offsetBytes, fault.lengthBytes),
        structure: `tree ${tree}`,
      };
      context.report(
        { severity: lost ? 'fatal' : 'warn', code: absent ? 'E_DEGRADED' : 'E_CORRUPT', message, where },
        lost ? 'unrepairable' : 'none',
      );
    }
  }

  async *claimExtents(): AsyncGenerator<void, void, undefined> {
    let step = 0;
    try {
      for await (const { key, value } of this.#context.tree(TREE_EXTENTS).range(EMPTY, null)) {
        const id = decodeExtentKey(key);
        if (extentTreeRecordKind(value) === 'sum-leaf') await this.#claimLeaf(id, decodeSumLeaf(value));
        else this.#claimExtent(id, decodeExtent(value));
        step += 1;
        if (step % ITEMS_PER_STEP === 0) yield;
      }
    } catch (error) {
      if (this.#verify) this.#context.reportError(error, 'fatal', 'unrepairable');
      this.#context.incomplete = true;
    }
    yield;
  }

  #claimExtent(id: number, extent: Extent): void {
    const sectorCount = extent.storedBytes / SECTOR_BYTES;
    for (const copy of extent.copies) this.#claim(copy.member, copy.sector, sectorCount, `extent ${id}`);
    if (!this.#verify) return;
    const { root } = this.#context;
    if (id >= root.nextId) this.#complain(`extent ${id} is not below the root's next id ${root.nextId}`);
    if (extent.contentBirth < 1 || extent.contentBirth > root.sequence)
      this.#complain(`extent ${id} is younger than the root`);
    if (
      extent.copies.some(
        (copy) => copy.placementBirth < extent.contentBirth || copy.placementBirth > root.sequence,
      )
    ) {
      this.#complain(`extent ${id} has a copy placed before its content or after the root`);
    }
    if (extent.coding === undefined && extent.rawBytes > extent.storedBytes)
      this.#complain(`extent ${id} has more raw than stored bytes`);
    const members = new Set(extent.copies.map((copy) => copy.member));
    if (members.size < extent.copies.length) this.#complain(`extent ${id} has two copies on one member`);
    if (extent.copies.length < extent.wantedCopies) {
      const message = `extent ${id} has ${extent.copies.length} of ${extent.wantedCopies} wanted copies`;
      this.#context.report({ severity: 'warn', code: 'E_DEGRADED', message });
    }
  }

  async #claimLeaf(id: number, leaf: SumLeaf): Promise<void> {
    for (const copy of leaf.copies) this.#claim(copy.member, copy.sector, 1, `sum leaf ${id}`);
    if (!this.#verify) return;
    const { root } = this.#context;
    if (id >= root.nextId) this.#complain(`sum leaf ${id} is not below the root's next id ${root.nextId}`);
    if (leaf.birth < 1 || leaf.birth > root.sequence)
      this.#complain(`sum leaf ${id} is younger than the root`);
    const { sum, birth, copies } = leaf;
    await this.#verifyPage(
      { sum, birth, copies, storedBytes: SECTOR_BYTES, level: 0, kind: KIND_SUM_LEAF },
      TREE_EXTENTS,
    );
  }

  async *claimDeferred(): AsyncGenerator<void, void, undefined> {
    const context = this.#context;
    const free = context.tree(TREE_FREE);
    if (this.#verify) {
      for await (const { key } of free.items(Uint8Array.of(1), Uint8Array.of(2))) {
        const place = decodeFreeKey(key);
        if (place.kind === 'region' && context.regions.firstOf(place.member) !== undefined) continue;
        this.#complain('the free map has a region of a member that the store does not have');
      }
    }
    for (const [sequence, ranges] of await readDeferred(free)) {
      if (this.#verify && sequence > context.root.sequence)
        this.#complain(`a deferred record of root ${sequence} is from the future`);
      for (const range of ranges)
        this.#claim(range.member, range.sector, range.sectorCount, `what root ${sequence} freed`, true);
    }
    yield;
  }

  async *compareFree(): AsyncGenerator<void, void, undefined> {
    const context = this.#context;
    for (let number = this.#window.first; number < this.#window.first + this.#window.count; number += 1) {
      const { geometry, region } = context.regions.at(number);
      const runs = await readRegion(context.snapshot, geometry.member, region);
      const mismatches = this.#window.compareFree(
        number,
        runs === null
          ? null
          : (run) => {
              for (let i = 0; i < runs.runCount; i += 1) run(runs.start(i), runs.count(i));
            },
      );
      for (const { member, sector, sectorCount, kind } of mismatches) {
        if (kind === 'leaked' && context.incomplete) continue;
        const message =
          kind === 'leaked'
            ? `${sectorCount} sectors belong to nothing and are not free`
            : `${sectorCount} sectors are in use and free at once, or lie outside the data area`;
        const where = {
          ...context.place(member, sector * SECTOR_BYTES, sectorCount * SECTOR_BYTES),
          structure: 'free map',
        };
        context.report({ severity: kind === 'leaked' ? 'warn' : 'error', code: 'E_CORRUPT', message, where });
      }
      if (number % 16 === 0) yield;
    }
  }

  /** The member table's allocatedSectors against what was claimed and is not deferred. */
  compareAllocated(): void {
    const { root, incomplete } = this.#context;
    if (incomplete) return;
    for (const [index, entry] of root.members.entries()) {
      const reachable = this.#reachable.get(index) ?? 0;
      if (entry.formattedBytes === 0 || entry.allocatedSectors === reachable) continue;
      this.#complain(
        `${this.#context.memberPath(index)}: ${entry.allocatedSectors} sectors in use by the root, ` +
          `${reachable} by what it reaches`,
      );
    }
  }

  #claim(member: number, sector: number, sectorCount: number, what: string, deferred = false): void {
    const context = this.#context;
    const result = this.#window.claim(member, sector, sectorCount);
    if (!deferred) this.#reachable.set(member, (this.#reachable.get(member) ?? 0) + sectorCount);
    if (result === 'ok') return;
    const where = {
      ...context.place(member, sector * SECTOR_BYTES, sectorCount * SECTOR_BYTES),
      structure: what,
    };
    if (result === 'outside') {
      if (!this.#verify) return;
      const entry = context.root.members[member];
      const end =
        entry === undefined || entry.formattedBytes === 0
          ? DATA_FIRST_SECTOR
          : dataEndSector(entry.formattedBytes);
      context.report({
        severity: 'fatal',
        code: 'E_FORMAT',
        message: `${what} lies outside the data area (ends at sector ${end})`,
        where,
      });
      return;
    }
    const message = `${what} shares sector ${result.sharedSector} with something else`;
    context.report({ severity: 'fatal', code: 'E_CORRUPT', message, where });
  }

  #complain(message: string): void {
    this.#context.reportError(
      new StoreError('E_FORMAT', message, { next: 'ingot fsck --json shows every finding' }),
    );
  }
}
