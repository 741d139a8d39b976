// Walking the extent tree and moving copies: what maintenance does to extent records.
//
// Invariants
//   1. A record changes only its copies here; content birth, sums and reference count stay.
//   2. New copies are born with the root that holds the change (placement birth). Dropped ones are freed in
//      the same change, also on members that are away.
//   3. A record that is not as the caller saw it is left alone ('moved', 'gone'): versions are removed and
//      other jobs run meanwhile.
//   4. The last copy is never dropped.
//
// It moves no bytes: the caller has written and flushed nothing but data of its own grants, and the commit
// flushes them (commit.md section 2).

import { StoreError, assert } from '../../format/errors.js';
import { decodeExtent, decodeExtentKey, decodeSumLeaf, encodeExtent, extentKey } from '../../format/index.js';
import type { Extent, ExtentCopy, SumLeaf } from '../../format/index.js';
import type { CatalogChange, CatalogView, SpaceGrant } from '../contract.js';

export type ExtentTreeItem =
  | { readonly id: number; readonly kind: 'extent'; readonly extent: Extent }
  | { readonly id: number; readonly kind: 'sum-leaf'; readonly leaf: SumLeaf };

/** File identifier of a FlatBuffer: bytes 4..8. */
function identifierOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(4, 8));
}

/** Extents and sum leaves with fromId <= id < toId, ascending; a job goes on at the last id it finished + 1. */
export async function* extentItems(
  view: CatalogView,
  fromId: number,
  toId: number | null,
  signal?: AbortSignal,
): AsyncGenerator<ExtentTreeItem, void, undefined> {
  const to = toId === null ? null : extentKey(toId);
  for await (const item of view.range(2, extentKey(fromId), to, signal === undefined ? {} : { signal })) {
    const id = decodeExtentKey(item.key);
    const identifier = identifierOf(item.value);
    if (identifier === 'IGEX') yield { id, kind: 'extent', extent: decodeExtent(item.value) };
    else if (identifier === 'IGSL') yield { id, kind: 'sum-leaf', leaf: decodeSumLeaf(item.value) };
    else throw new StoreError('E_FORMAT', `item ${id} of the extent tree is ${identifier}`);
  }
}

export interface CopyMove {
  readonly id: number;
  /** Copies that go: exactly as they stand in the record. */
  readonly drop: readonly ExtentCopy[];
  /** Where the bytes were written: whole grants of storedBytes. */
  readonly add: readonly SpaceGrant[];
}

/**
 * Rewrites the copies of one extent inside a change. 'gone' (removed) and 'moved' (a copy to be dropped is
 * not in the record any more, or a copy was added on one of the members) leave everything as it is: the caller
 * releases its grants. `StoreContext.removalSequence` must be set to the change's sequence before the commit
 * settles when anything was dropped, as removal does: cached records name freed space.
 */
export async function rewriteCopies(
  change: CatalogChange,
  move: CopyMove,
): Promise<'rewritten' | 'gone' | 'moved'> {
  const key = extentKey(move.id);
  const found = change.get(2, key);
  const bytes = found instanceof Promise ? await found : found;
  if (bytes === undefined || identifierOf(bytes) !== 'IGEX') return 'gone';
  const extent = decodeExtent(bytes);
  const stays = extent.copies.filter((copy) => !move.drop.some((gone) => isSamePlace(gone, copy)));
  if (stays.length !== extent.copies.length - move.drop.length) return 'moved';
  if (move.add.some((grant) => stays.some((copy) => copy.member === grant.member))) return 'moved';
  const added = move.add.map((grant): ExtentCopy => {
    assert(grant.sectorCount * 4096 === extent.storedBytes, 'a copy is as long as its extent');
    return { member: grant.member, sector: grant.sector, placementBirth: change.sequence };
  });
  const copies = [...stays, ...added];
  if (copies.length === 0 || copies.length > 3) return 'moved';
  for (const grant of move.add) change.useSpace(grant);
  for (const copy of move.drop) change.freeSpace(copy.member, copy.sector, extent.storedBytes / 4096);
  await change.put(2, key, encodeExtent({ ...extent, copies }));
  return 'rewritten';
}

export interface CopyRaise extends CopyMove {
  /** The record's copies when the new ones were placed: one that was changed since keeps what it has. */
  readonly seen: readonly ExtentCopy[];
  readonly wantedCopies: number;
}

/**
 * Raises how many copies an extent wants, and names new ones, inside a change. Resolves to the copies that it then has
 * and whether the new ones are among them; null when the extent is gone. As for `rewriteCopies`, cached records are
 * out of date from this change on.
 */
export async function raiseCopies(
  change: CatalogChange,
  raise: CopyRaise,
): Promise<{ readonly copies: readonly ExtentCopy[]; readonly isPlaced: boolean } | null> {
  const key = extentKey(raise.id);
  const found = change.get(2, key);
  const bytes = found instanceof Promise ? await found : found;
  if (bytes === undefined || identifierOf(bytes) !== 'IGEX') return null;
  const extent = decodeExtent(bytes);
  const isAsSeen =
    extent.copies.length === raise.seen.length &&
    extent.copies.every((copy) => raise.seen.some((seen) => isSamePlace(copy, seen)));
  const isPlaced = raise.add.length > 0 && isAsSeen && (await rewriteCopies(change, raise)) === 'rewritten';
  const again = isPlaced ? change.get(2, key) : bytes;
  const after = again instanceof Promise ? await again : again;
  assert(after !== undefined, 'an extent whose copies were rewritten is there');
  const { copies, wantedCopies, ...rest } = decodeExtent(after);
  const record = { ...rest, copies, wantedCopies: Math.max(wantedCopies, raise.wantedCopies) };
  await change.put(2, key, encodeExtent(record));
  return { copies, isPlaced };
}

function isSamePlace(a: ExtentCopy, b: ExtentCopy): boolean {
  return a.member === b.member && a.sector === b.sector && a.placementBirth === b.placementBirth;
}
