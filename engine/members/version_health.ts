// Which versions are whole with the members that are here, and which have lost something: the exact list.
//
// Invariants
//   1. A version is 'lost' when some extent that it needs has no readable copy, 'short' when all can be read but some
//      have fewer counted copies than wanted, else 'whole'. It needs those that its manifest names and, of deltas,
//      their bases. Nothing is guessed: every extent is looked at.
//   2. Records are read, no tensor bytes: a copy that is there and bad is a scrub's to find.
//
// It changes nothing.

import { StoreError, decodeManifest, decodeVersion, versionKey } from '../../format/index.js';
import type { CatalogSnapshot } from '../contract.js';
import { withBases } from '../extent_source.js';
import type { StoreContext } from '../store_context.js';
import { readableCopies, standingsOf } from './copies.js';
import type { CopyStandings } from './copies.js';

export interface VersionHealth {
  readonly id: number;
  readonly run: string;
  readonly step: number | null;
  readonly state: 'whole' | 'short' | 'lost';
  /** Extents without a readable copy. */
  readonly lostExtents: number;
  /** Tensors and blobs that need one of them, by name. */
  readonly lostObjects: readonly string[];
  /** Extents with fewer copies that count than wanted. */
  readonly shortExtents: number;
}

/** All versions in the order of their ids. */
export async function* versionHealth(
  context: StoreContext,
  signal?: AbortSignal,
): AsyncGenerator<VersionHealth, void, undefined> {
  const lease = context.snapshots.lease();
  try {
    const { snapshot } = lease;
    const standings = standingsOf(context.catalog.members);
    for await (const { key, value } of snapshot.range(1, new Uint8Array(0), null)) {
      signal?.throwIfAborted();
      // Part 0 of a version; its manifest (part 1) follows under the same id.
      if (key.at(-1) !== 0) continue;
      const { id, run, step } = decodeVersion(value);
      yield { id, run, step, ...(await judge(context, snapshot, id, standings)) };
    }
  } finally {
    lease.release();
  }
}

async function judge(
  context: StoreContext,
  snapshot: CatalogSnapshot,
  id: number,
  standings: CopyStandings,
): Promise<Pick<VersionHealth, 'state' | 'lostExtents' | 'lostObjects' | 'shortExtents'>> {
  const bytes = await snapshot.get(1, versionKey(id, 1));
  if (bytes === undefined) throw new StoreError('E_FORMAT', `version v:${id} has no manifest`);
  const { tensors, blobs } = decodeManifest(bytes);
  const objects = [...tensors, ...blobs];
  const ids = objects.flatMap((object) => object.pieces.map((piece) => piece.extentId));
  const extents = await withBases(context, snapshot, ids, `v:${id}`);
  const lost = new Set<number>();
  let lostExtents = 0;
  let shortExtents = 0;
  // A base has the smaller id, so it is judged before what is a difference to it.
  for (const [extentId, { copies, wantedCopies, coding }] of [...extents].sort((a, b) => a[0] - b[0])) {
    if (coding?.base !== undefined && lost.has(coding.base.extentId)) lost.add(extentId);
    if (readableCopies(copies, standings).length === 0) lostExtents += 1;
    if (readableCopies(copies, standings).length === 0) lost.add(extentId);
    const counted = copies.filter((copy) => standings.get(copy.member)?.isGivenUp === false);
    if (counted.length < wantedCopies) shortExtents += 1;
  }
  const lostObjects = objects
    .filter((object) => object.pieces.some((piece) => lost.has(piece.extentId)))
    .map((object) => object.name);
  const state = lost.size > 0 ? 'lost' : shortExtents > 0 ? 'short' : 'whole';
  return { state, lostExtents, lostObjects, shortExtents };
}
