// Whose bytes an extent holds: versions and tensors by extent id, in one pass over the extents and one over the
// manifests. A tensor that is a delta of an extent needs its bytes as well, so it is a user of it.
//
// Invariants
//   1. A pass holds one record or manifest at a time, and what it found.
//   2. What cannot be read, and everything while the keys are locked, leaves the extent unnamed; it never stops who
//      asked.
//
// It is asked only when something is wrong, so that the cost of names is paid only then.

import { isStoreError } from '../../format/errors.js';
import { decodeExtent, extentTreeRecordKind } from '../../format/extent_record.js';
import {
  TREE_EXTENTS,
  TREE_VERSIONS,
  decodeExtentKey,
  decodeManifest,
  decodeVersionKey,
} from '../../format/index.js';
import type { CatalogView } from '../contract.js';
import type { KeyRing } from '../keys/key_ring.js';

const EMPTY = new Uint8Array(0);

export interface Owner {
  /** Version id. */
  readonly object: string;
  readonly tensor: string;
  /** Raw bytes of the extent that it uses. */
  readonly start: number;
  readonly end: number;
}

/** Where the bytes of an extent are needed: in itself, or in one that it is the base of. */
interface Need {
  readonly id: number;
  /** Of a coded extent every stored byte may be needed for every raw one. */
  readonly isCoded: boolean;
}

/** Users of these extents by id. */
export async function ownersOf(
  view: Pick<CatalogView, 'range' | 'get'>,
  keys: KeyRing,
  ids: ReadonlySet<number>,
  signal?: AbortSignal,
): Promise<Map<number, Owner[]>> {
  const owners = new Map<number, Owner[]>();
  if (ids.size === 0 || keys.isLocked) return owners;
  try {
    const needs = await needsOf(view, ids, signal);
    for await (const { key, value } of view.range(TREE_VERSIONS, EMPTY, null)) {
      signal?.throwIfAborted();
      const { versionId, part } = decodeVersionKey(key);
      if (part !== 1) continue;
      const manifest = decodeManifest(value);
      for (const object of [...manifest.tensors, ...manifest.blobs]) {
        for (const { extentId, rawOffset, rawBytes } of object.pieces) {
          for (const { id, isCoded } of needs.get(extentId) ?? []) {
            const [start, end] = isCoded ? [0, Number.MAX_SAFE_INTEGER] : [rawOffset, rawOffset + rawBytes];
            const owner = { object: `v:${versionId}`, tensor: object.name, start, end };
            const list = owners.get(id);
            if (list === undefined) owners.set(id, [owner]);
            else list.push(owner);
          }
        }
      }
    }
  } catch (error) {
    if (!isStoreError(error)) throw error;
  }
  return owners;
}

/** By extent that a manifest may name: which of `ids` its bytes need. Bases have smaller ids, so one pass finds all. */
async function needsOf(
  view: Pick<CatalogView, 'range'>,
  ids: ReadonlySet<number>,
  signal: AbortSignal | undefined,
): Promise<Map<number, Need[]>> {
  const needs = new Map<number, Need[]>();
  for await (const { key, value } of view.range(TREE_EXTENTS, EMPTY, null)) {
    signal?.throwIfAborted();
    if (extentTreeRecordKind(value) !== 'extent') continue;
    const id = decodeExtentKey(key);
    const { coding } = decodeExtent(value);
    const own = ids.has(id) ? [{ id, isCoded: coding !== undefined }] : [];
    const below = needs.get(coding?.base?.extentId ?? 0) ?? [];
    const all = [...own, ...below.map((need) => ({ id: need.id, isCoded: true }))];
    if (all.length > 0) needs.set(id, all);
  }
  return needs;
}

/** Those of the users whose bytes a stretch of the extent touches; all of them when it touches padding only. */
export function touchedOwners(
  owners: readonly Owner[],
  fromBytes: number,
  byteLength: number,
): readonly Owner[] {
  const touched = owners.filter((owner) => fromBytes < owner.end && fromBytes + byteLength > owner.start);
  return touched.length > 0 ? touched : owners;
}
