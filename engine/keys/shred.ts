// Shredding a version: it is removed, and what its bytes could be opened with is taken from the drives.
//
// Invariants
//   1. Refused, and nothing is changed, while another version names extents of it or deltas of them: their key has to
//      stay, and with it the bytes would.
//   2. Extents that it shares with versions which wrote them stay theirs, and are counted in the answer.
//   3. It is complete when no member is named: until then a member that is away holds old roots.
//
// The stored bytes stay where they are until their space is used again; nothing opens them.

import { StoreError } from '../../format/errors.js';
import {
  TREE_EXTENTS,
  TREE_KEYS,
  type VersionRecord,
  dataKeyKey,
  decodeExtent,
  decodeExtentKey,
  extentTreeRecordKind,
} from '../../format/index.js';

import type { Catalog, CatalogChange, CatalogView } from '../contract.js';
import { type RemovedVersion, removeVersion } from '../removal.js';
import { ownersOf } from '../repair/owners.js';
import { type OldKeyHolder, beginErasure, finishErasure } from './erasure.js';
import type { KeyRing } from './key_ring.js';

/** Versions named in a refusal. */
const DEPENDENTS_SHOWN = 8;
const EMPTY = new Uint8Array(0);

export interface ShredReport {
  readonly record: VersionRecord;
  /** Members on which old roots may still stand: none, and it is complete. */
  readonly notErased: readonly OldKeyHolder[];
}

/** Removes the version in this change, so that nothing is left which opens it. Errors as removeVersion, E_CONFLICT. */
export async function shredVersion(
  change: CatalogChange,
  catalog: Catalog,
  id: number,
  options: { force: boolean; nowMs: number; ref: string },
): Promise<RemovedVersion> {
  const removed = await removeVersion(change, id, options);
  const { keyId } = removed.record;
  // Without extents of its own it has no data key: its pages are all there is to take away.
  if (keyId > 0 && (await change.get(TREE_KEYS, dataKeyKey(keyId))) !== undefined)
    throw await dependedOn(change, catalog.keys, keyId, options.ref);
  beginErasure(change, catalog);
  return removed;
}

/** What comes after the commit of `shredVersion`. */
export async function finishShred(catalog: Catalog, record: VersionRecord): Promise<ShredReport> {
  catalog.keys.forget(record.keyId);
  return { record, notErased: await finishErasure(catalog) };
}

async function dependedOn(view: CatalogView, keys: KeyRing, keyId: number, ref: string): Promise<StoreError> {
  const ids = new Set<number>();
  for await (const { key, value } of view.range(TREE_EXTENTS, EMPTY, null)) {
    if (extentTreeRecordKind(value) !== 'extent') continue;
    if (decodeExtent(value).sealing?.keyId === keyId) ids.add(decodeExtentKey(key));
  }
  const owners = await ownersOf(view, keys, ids);
  const versions = [...new Set([...owners.values()].flat().map(({ object }) => object))];
  const shown = versions.slice(0, DEPENDENTS_SHOWN).join(', ');
  const more = versions.length > DEPENDENTS_SHOWN ? ` and ${versions.length - DEPENDENTS_SHOWN} more` : '';
  return new StoreError(
    'E_CONFLICT',
    `${ref} cannot be shredded: ${ids.size} of its extents are used by ${shown}${more}`,
    {
      where: { object: ref },
      safe: 'nothing was changed',
      next: 'shred or remove the versions that link to it or are deltas of it first',
    },
  );
}
