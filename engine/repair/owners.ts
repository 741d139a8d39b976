// Whose bytes an extent holds: versions and tensors by extent id, in one pass over the manifests.
//
// Invariants
//   1. A pass holds one manifest at a time, and what it found.
//   2. What cannot be read leaves the extent unnamed; it never stops who asked.
//
// It is asked only when something is wrong, so that the cost of names is paid only then.

import { isStoreError } from '../../format/errors.js';
import { TREE_VERSIONS, decodeManifest, decodeVersionKey } from '../../format/index.js';
import type { CatalogView } from '../contract.js';

export interface Owner {
  /** Version id. */
  readonly object: string;
  readonly tensor: string;
  /** Raw bytes of the extent that it uses. */
  readonly start: number;
  readonly end: number;
}

/** Users of these extents by id. */
export async function ownersOf(
  view: CatalogView,
  ids: ReadonlySet<number>,
  signal?: AbortSignal,
): Promise<Map<number, Owner[]>> {
  const owners = new Map<number, Owner[]>();
  if (ids.size === 0) return owners;
  try {
    for await (const { key, value } of view.range(TREE_VERSIONS, new Uint8Array(0), null)) {
      signal?.throwIfAborted();
      const { versionId, part } = decodeVersionKey(key);
      if (part !== 1) continue;
      const manifest = decodeManifest(value);
      for (const object of [...manifest.tensors, ...manifest.blobs]) {
        for (const { extentId, rawOffset, rawBytes } of object.pieces) {
          if (!ids.has(extentId)) continue;
          const owner = {
            object: `v:${versionId}`,
            tensor: object.name,
            start: rawOffset,
            end: rawOffset + rawBytes,
          };
          const list = owners.get(extentId);
          if (list === undefined) owners.set(extentId, [owner]);
          else list.push(owner);
        }
      }
    }
  } catch (error) {
    if (!isStoreError(error)) throw error;
  }
  return owners;
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
