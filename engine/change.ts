// One change on its way into the next root: the CatalogChange that a caller's `apply` sees.
//
// Invariants
//   1. A change that is taken back leaves trees exactly as they were; its space uses and frees were only
//      noted, so there is nothing else to undo. Ids it took stay burned.
//   2. A change whose `apply` has ended does nothing any more: late calls are our caller's bug and throw.
//   3. Each range is used or freed once within a change.
//
// It never builds pages and never touches free space (commit_build.ts does, with what was noted here).

import { StoreError, assert } from '../format/errors.js';
import type { Savepoint } from './btree.js';
import type { CatalogCore } from './catalog_core.js';
import type {
  CatalogChange,
  MaybePromise,
  MemberEntryChange,
  SpaceGrant,
  TreeId,
  TreeItem,
} from './contract.js';
import type { SectorRange } from './deferred.js';
import type { NextMaster } from './keys/page_seals.js';
import type { MoveOptions, MoveResult } from './tree_move.js';
import type { MemberSetMark } from './members/member_set.js';
import type { MemberEntry } from '../format/index.js';

/** Trees that callers may change: runs, versions, extents, members, keys. Free space is the commit's own. */
const CHANGEABLE: ReadonlySet<TreeId> = new Set<TreeId>([0, 1, 2, 4, 5]);

export class Change implements CatalogChange {
  readonly sequence: number;
  readonly uses: SectorRange[] = [];
  readonly frees: SectorRange[] = [];
  /** Older roots hold keys that are to go; and the master key that seals the root, when it is another one. */
  erases = false;
  next: NextMaster | null = null;
  readonly #core: CatalogCore;
  readonly #savepoints = new Map<TreeId, Savepoint>();
  readonly #running = new Set<Promise<unknown>>();
  #memberMark: MemberSetMark | null = null;
  #ended = false;

  constructor(core: CatalogCore) {
    this.#core = core;
    this.sequence = core.superblock.sequence + 1;
  }

  get(tree: TreeId, key: Uint8Array): MaybePromise<Uint8Array | undefined> {
    this.#checkOpen();
    return this.#core.tree(tree).get(key);
  }

  lastItem(tree: TreeId, from: Uint8Array, below: Uint8Array): MaybePromise<TreeItem | undefined> {
    this.#checkOpen();
    return this.#core.tree(tree).lastItem(from, below);
  }

  range(
    tree: TreeId,
    from: Uint8Array,
    to: Uint8Array | null,
    options?: { reverse?: boolean; signal?: AbortSignal },
  ): AsyncIterableIterator<TreeItem> {
    this.#checkOpen();
    return this.#core.tree(tree).range(from, to, options);
  }

  itemCount(tree: TreeId): number {
    return this.#core.tree(tree).itemCount;
  }

  async put(tree: TreeId, key: Uint8Array, value: Uint8Array): Promise<void> {
    const done = this.#editable(tree).put(key, value);
    if (done instanceof Promise) await this.#track(done);
  }

  async delete(tree: TreeId, key: Uint8Array): Promise<boolean> {
    const done = this.#editable(tree).delete(key);
    return done instanceof Promise ? this.#track(done) : done;
  }

  async movePages(tree: TreeId, options: MoveOptions): Promise<MoveResult> {
    return this.#track(this.#editable(tree).movePages(options));
  }

  takeVersionId(): number {
    this.#checkOpen();
    const id = this.#core.nextVersionId;
    assert(Number.isSafeInteger(id + 1), 'version ids stay below 2^53');
    this.#core.nextVersionId = id + 1;
    return id;
  }

  useSpace(grant: SpaceGrant): void {
    this.#checkOpen();
    assert(this.#core.allocator.isGranted(grant), 'a change uses only space that was granted');
    assert(!overlapsAny(this.uses, grant), 'a change uses a range once');
    this.uses.push({ member: grant.member, sector: grant.sector, sectorCount: grant.sectorCount });
  }

  takesSpace(grant: SpaceGrant): boolean {
    this.#checkOpen();
    return this.#core.members.takesWrites(grant.member) && this.#core.allocator.isGranted(grant);
  }

  eraseOlderRoots(next: NextMaster | null = null): void {
    this.#checkOpen();
    this.erases = true;
    this.next = next;
  }

  touchFreeSpace(key: Uint8Array): void {
    this.#checkOpen();
    this.#core.touchedFreeKeys.push(key);
  }

  putMember(index: number, change: MemberEntryChange): void {
    this.#checkOpen();
    this.#memberMark ??= this.#core.members.mark();
    this.#core.members.put(index, change);
  }

  /** A new member (members/add_member.ts alone). */
  addMember(entry: MemberEntry): void {
    this.#checkOpen();
    this.#memberMark ??= this.#core.members.mark();
    this.#core.members.add(entry);
  }

  freeSpace(member: number, sector: number, sectorCount: number): void {
    this.#checkOpen();
    const { start, end } = this.#core.allocator.space(member).dataArea;
    if (!(sectorCount >= 1) || sector < start || sector + sectorCount > end) {
      throw new StoreError(
        'E_CORRUPT',
        `freed sectors ${sector}+${sectorCount} lie outside member ${member}'s data area`,
        {
          where: { memberIndex: member, offsetBytes: sector * 4096, structure: 'extent' },
          safe: 'this change was left out',
          next: 'ingot fsck',
        },
      );
    }
    this.frees.push({ member, sector, sectorCount });
  }

  /** `apply` has ended well; its edits stay. */
  async end(): Promise<void> {
    this.#ended = true;
    if (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** `apply` has failed: its edits go, once those it left running have ended. */
  async takeBack(): Promise<void> {
    this.#ended = true;
    if (this.#running.size > 0) await Promise.allSettled(this.#running);
    for (const [tree, savepoint] of this.#savepoints) this.#core.tree(tree).rollback(savepoint);
    if (this.#memberMark !== null) this.#core.members.takeBack(this.#memberMark);
  }

  /** Edits that had to read pages, until they end. */
  #track<T>(edit: Promise<T>): Promise<T> {
    this.#running.add(edit);
    const forget = (): void => void this.#running.delete(edit);
    edit.then(forget, forget);
    return edit;
  }

  #editable(tree: TreeId): ReturnType<CatalogCore['tree']> {
    this.#checkOpen();
    assert(CHANGEABLE.has(tree), 'the free tree belongs to the commit');
    const edited = this.#core.tree(tree);
    if (!this.#savepoints.has(tree)) this.#savepoints.set(tree, edited.beginEdit());
    return edited;
  }

  #checkOpen(): void {
    assert(!this.#ended, 'a change is over when its apply has ended');
  }
}

function overlapsAny(ranges: readonly SectorRange[], range: SectorRange): boolean {
  // Uses come in order of placement, so the newest are compared first; long lists are checked again by the
  // allocator.
  for (let i = ranges.length - 1; i >= 0 && i >= ranges.length - 8; i -= 1) {
    const other = ranges[i] as SectorRange;
    if (other.member !== range.member) continue;
    if (other.sector < range.sector + range.sectorCount && range.sector < other.sector + other.sectorCount)
      return true;
  }
  return false;
}
